use super::*;

/// What agents of version 1 send. A line is never changed: such agents and shims are running.
const REQUESTS_1: &[&str] = &[
    r#"{"Create":{"id":"c","bundle":"/b","rootfs":"/r","log":null,"tty":false,"stdin":false,"stdin_once":false,"cgroups":["/g"]}}"#,
    r#"{"Start":{"id":"c"}}"#,
    r#"{"Kill":{"id":"c","signal":15}}"#,
    r#"{"Remove":{"id":"c"}}"#,
    r#"{"Exec":{"id":"c","process":"/p","tty":true,"stdin":true,"stdout":true,"stderr":false}}"#,
    r#"{"KillExec":{}}"#,
    r#"{"Attach":{"id":"c","stdin":true,"stdout":true,"stderr":true}}"#,
    r#"{"CloseStdin":{}}"#,
    r#"{"ReopenLog":{"id":"c"}}"#,
    r#"{"Subscribe":{}}"#,
    r#"{"Shutdown":{}}"#,
];

/// What shims of version 1 say.
const REPLIES_1: &[&str] = &[
    r#"{"Done":{}}"#,
    r#"{"Pid":{"pid":7}}"#,
    r#"{"Error":{"message":"m","not_found":true}}"#,
    r#"{"Exited":{"code":137}}"#,
    r#"{"Changed":{"id":"c","state":{"phase":"Running","pid":7,"started":1,"finished":0,"code":0,"signal":0,"oom":false,"error":""}}}"#,
];

/// A shim's configuration as the first release wrote it, without a version.
const CONFIG_0: &str = r#"{"hostname":"h","host_network":false,"host_ipc":false,"shared_pid":false,
    "sysctls":[["a.b","1"]],"cgroups":["/g"],"shm_bytes":1,"log_limit_bytes":2,"log_files":3,
    "oci_root":"/o","layers":"/l"}"#;

#[test]
fn packets_of_version_1_are_still_understood_and_sent() {
    for packet in REQUESTS_1 {
        let request: Request =
            serde_json::from_str(packet).unwrap_or_else(|e| panic!("{packet}: {e}"));
        assert_eq!(&serde_json::to_string(&request).expect("JSON"), packet);
    }
    for packet in REPLIES_1 {
        let reply: Reply = serde_json::from_str(packet).unwrap_or_else(|e| panic!("{packet}: {e}"));
        assert_eq!(&serde_json::to_string(&reply).expect("JSON"), packet);
    }
}

#[test]
fn what_a_newer_release_adds_is_passed_over() {
    let request = r#"{"Kill":{"id":"c","signal":9,"new":true}}"#;
    assert!(matches!(serde_json::from_str(request), Ok(Request::Kill { signal: 9, .. })));
    let state: State = serde_json::from_str(r#"{"phase":"Exited","new":1}"#).expect("a state");
    assert_eq!(state.phase, Phase::Exited);
    assert!(serde_json::from_str::<Request>(r#"{"Freeze":{"id":"c"}}"#).is_err());
}

#[test]
fn a_configuration_without_a_version_is_of_the_first() {
    let config: ShimConfig = serde_json::from_str(CONFIG_0).expect("a configuration");
    assert_eq!((config.protocol, config.log_files), (0, 3));
}
