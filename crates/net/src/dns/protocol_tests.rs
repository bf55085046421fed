use super::*;

/// What is said between releases. A line is never changed: such holders are running.
#[test]
fn what_every_release_says_stays_as_it_is() {
    for (request, line) in [
        (Request::Hello {}, r#"{"Hello":{}}"#),
        (Request::Sockets {}, r#"{"Sockets":{}}"#),
        (Request::Leave {}, r#"{"Leave":{}}"#),
    ] {
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
    }
    let me = Reply::Me { fingerprint: "x".to_owned() };
    for (reply, line) in [
        (me, r#"{"Me":{"fingerprint":"x"}}"#),
        (Reply::Sockets {}, r#"{"Sockets":{}}"#),
        (Reply::Left {}, r#"{"Left":{}}"#),
    ] {
        assert_eq!(serde_json::to_string(&reply).unwrap(), line);
        assert_eq!(serde_json::from_str::<Reply>(line).unwrap(), reply);
    }
    // What a later release adds to an answer does not keep this one from reading it.
    let later = r#"{"Me":{"fingerprint":"x","since":7}}"#;
    assert!(
        matches!(serde_json::from_str(later), Ok(Reply::Me { fingerprint }) if fingerprint == "x")
    );
}

#[test]
fn another_release_or_configuration_is_another_holder() {
    let config = DnsConfig::default();
    let same = fingerprint("1.0", &config);
    assert_eq!(same, fingerprint("1.0", &config.clone()));
    assert_ne!(same, fingerprint("1.1", &config));
    let other = DnsConfig { cluster_domain: "home.arpa".to_owned(), ..config };
    assert_ne!(same, fingerprint("1.0", &other));
}
