//! Shared libraries written in C, compiled when a test needs them.

use crate::artifacts::workspace;
use crate::sandbox::Sandbox;
use std::path::PathBuf;
use std::process::Command;

/// A library in the making.
#[derive(Debug)]
#[must_use]
pub struct CLibrary {
    source: String,
    arguments: Vec<String>,
}

/// A monitor that does nothing, correctly.
const QUIET: &str = r#"
#include "immortal_monitor.h"
static void *create(const im_host *host, const im_opt *options, size_t count) {
    (void)host; (void)options; (void)count;
    static int instance;
    return &instance;
}
static void destroy(void *instance) { (void)instance; }
"#;

const TABLE: &str = r#"
#ifndef SAID_MAGIC
#define SAID_MAGIC IM_MAGIC
#endif
#ifndef MORE
#define MORE
#endif
#ifndef SAID_ABI
#define SAID_ABI IM_ABI
#endif
const im_monitor immortal_monitor_v1 = {
    .magic = SAID_MAGIC, .abi = SAID_ABI, .size = sizeof(im_monitor),
    .name = "quiet", .version = "1", .about = "does nothing", .create = create, .destroy = destroy, MORE
};
"#;

impl CLibrary {
    /// Compiles exactly this text.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), arguments: Vec::new() }
    }

    /// A correct monitor that does nothing, with `extra` code before its table.
    pub fn quiet(extra: &str) -> Self {
        Self::new(format!("{QUIET}{extra}{TABLE}"))
    }

    /// Adds an argument for the compiler.
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Compiles it into the sandbox and returns the library's path.
    ///
    /// # Panics
    /// If the compiler refuses it.
    #[must_use]
    pub fn build(self, sandbox: &Sandbox, name: &str) -> PathBuf {
        self.compile(sandbox, name, std::env::consts::DLL_SUFFIX, &["-shared", "-fPIC"])
    }

    /// Compiles it into a program instead, and returns its path.
    ///
    /// # Panics
    /// If the compiler refuses it.
    #[must_use]
    pub fn build_program(self, sandbox: &Sandbox, name: &str) -> PathBuf {
        self.compile(sandbox, name, std::env::consts::EXE_SUFFIX, &[])
    }

    fn compile(self, sandbox: &Sandbox, name: &str, suffix: &str, kind: &[&str]) -> PathBuf {
        let source = sandbox.file(&format!("{name}.c"), &self.source, 0o600);
        let product = sandbox.path(format!("{name}{suffix}"));
        let output = Command::new("cc")
            .arg("-std=c99")
            .args(kind)
            .arg("-o")
            .arg(&product)
            .arg(&source)
            .arg("-I")
            .arg(workspace().join("monitor-api/include"))
            .args(&self.arguments)
            .output()
            .expect("a C compiler called cc");
        assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        product
    }
}
