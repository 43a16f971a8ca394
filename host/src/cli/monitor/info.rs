//! `monitor info`: what one library says of itself. Loaded in the helper process: it may crash.

use super::{Which, failure, option_json, option_lines};
use crate::cli::report::{self, Failure};
use crate::loader;
use crate::role::own_executable;
use serde_json::{Value, json};

pub(super) fn show(which: &Which, as_json: bool) -> Result<u8, Failure> {
    let (label, path) = which.resolve()?;
    let (description, _) = loader::describe(&own_executable(), &label, &path).map_err(failure)?;
    if as_json {
        let options = description.options.as_ref();
        report::json(&json!({
            "name": description.name,
            "version": description.version,
            "description": description.about,
            "api_version": description.api_version,
            "door": description.door.word(),
            "path": path.to_string_lossy(),
            "options": options.map(|options| options.iter().map(option_json).collect::<Vec<Value>>()),
        }))?;
        return Ok(0);
    }
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut lines = vec![
        format!("name         {}", description.name),
        format!("version      {}", or_dash(&description.version)),
        format!("description  {}", or_dash(&description.about)),
        format!("api version  {}", description.api_version.as_deref().unwrap_or("-")),
        format!("door         {}", description.door),
        format!("file         {}", path.display()),
    ];
    match description.options.as_deref() {
        None => {
            lines.push(format!("options      none declared; -o {label}.KEY=VALUE reaches it all the same"))
        }
        Some([]) => lines.push("options      none".into()),
        Some(_) => {
            lines.push("options".into());
            lines.extend(option_lines(&description).into_iter().map(|line| format!("  {line}")));
        }
    }
    report::bytes((lines.join("\n") + "\n").as_bytes())?;
    Ok(0)
}
