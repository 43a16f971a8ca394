//! What `list` and `status` show of a group that changes in its life at a reload only. Values of options and of the
//! environment are masked.

use crate::launch::Launch;
use crate::loader::Checked;
use crate::places::{Facts, MonitorFacts};
use crate::privileges;
use std::time::Duration;

/// The facts of this group.
pub(crate) fn of(launch: &Launch) -> Facts {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let policy = &launch.policy;
    let span = |span: Duration| format!("{span:?}");
    let options = |checked: &Checked| -> serde_json::Map<String, serde_json::Value> {
        checked.options.iter().map(|option| (option.key.clone(), "***".into())).collect()
    };
    let monitors: Vec<_> = launch.monitors.iter().map(|m| (m.label.clone(), options(m).into())).collect();
    let environment: Vec<_> = launch.program.env.iter().map(|(key, _)| (lossy(key), "***".into())).collect();
    Facts {
        strategy: launch.strategy.name().to_owned(),
        file: lossy(&launch.program.file),
        args: launch.program.args.iter().map(|arg| lossy(arg)).collect(),
        monitors: launch
            .monitors
            .iter()
            .map(|m| MonitorFacts {
                label: m.label.clone(),
                name: m.name.clone(),
                path: m.path.to_string_lossy().into_owned(),
            })
            .collect(),
        settings: serde_json::json!({
            "exec": launch.program.exec.as_ref().map(|exec| lossy(exec)),
            "cwd": lossy(&launch.program.directory),
            "env": serde_json::Map::from_iter(environment),
            "env_clear": launch.program.env_clear,
            "uid": launch.program.identity.as_ref().map(|identity| identity.uid),
            "gid": launch.program.identity.as_ref().map(|identity| identity.gid),
            "umask": launch.program.umask.map(|mask| format!("{mask:04o}")),
            "nice": launch.program.nice,
            "rlimits": launch.program.limits.iter().map(privileges::show).collect::<Vec<_>>(),
            "options": serde_json::Map::from_iter(monitors),
            "restart": policy.restart.name(),
            "stable": span(policy.stable),
            "backoff": span(policy.backoff),
            "backoff_max": span(policy.backoff_max),
            "stop_signal": crate::signal::name(policy.stop_signal),
            "stop_timeout": span(policy.stop_timeout),
            "setup_timeout": span(policy.setup_timeout),
            "buffer_limit": policy.buffer_limit,
            "max_restarts": policy.max_restarts,
            "ready_timeout": policy.ready_within.map(span),
            "on_crash": policy.on_crash.name(),
            "monitor_crashes": policy.monitor_crashes,
            "monitor_crash_window": span(policy.monitor_window),
            "hook_timeout": policy.hook_timeout.map(span),
        }),
        stop_signal: policy.stop_signal,
        stop_timeout_ms: u64::try_from(policy.stop_timeout.as_millis()).unwrap_or(u64::MAX),
    }
}
