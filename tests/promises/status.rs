//! What `status` says of a group's insides.

use immortal_tests::{Sandbox, eventually};
use serde_json::{Value, json};

#[test]
fn the_fill_of_the_spool_is_what_was_taken_and_not_delivered() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("slow", "4s")
        .args(["--on-crash", "keep"])
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    let size = group.status()["spool"]["size"].clone();
    assert!(size.as_u64().is_some_and(|size| size >= 65536), "{size}");
    assert_eq!(group.status()["spool"], json!({"size": size, "fill": 0}));
    sandbox.file("go", "", 0o600);
    eventually("a line in the spool", || {
        (group.status()["spool"] == json!({"size": size, "fill": 6})).then_some(())
    });
    let shown = sandbox.immortal(["status", "group"]).run().out();
    assert!(shown.contains(&format!("spool             size {size}, fill 6\n")), "{shown}");
}

#[test]
fn a_group_that_does_not_keep_has_no_spool() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    assert_eq!(group.status()["spool"], Value::Null);
}
