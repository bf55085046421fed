use super::*;

/// The zone that all questions are asked of.
fn zone() -> Zone {
    let port = |name: &str, protocol, port| ZonePort { name: name.to_owned(), protocol, port };
    let service = |namespace: &str, name: &str, target| ZoneService {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        target,
    };
    let endpoint = |ip: &str, hostname: Option<&str>| ZoneEndpoint {
        ip: ip.parse().unwrap(),
        hostname: hostname.map(str::to_owned),
        ports: vec![port("sql", Protocol::Tcp, 5432)],
    };
    let web = ZoneTarget::Cluster {
        ips: vec!["10.43.0.80".parse().unwrap(), "fd00:43::80".parse().unwrap()],
        ports: vec![port("http", Protocol::Tcp, 80), port("quic", Protocol::Udp, 443)],
    };
    let db = ZoneTarget::Headless(vec![
        endpoint("10.42.0.5", Some("db-0")),
        endpoint("10.42.1.6", None),
    ]);
    Zone::new(
        ["default".to_owned(), "empty".to_owned()],
        [
            service("default", "web", web),
            service("default", "db", db),
            service("default", "none", ZoneTarget::Headless(Vec::new())),
            service("default", "out", ZoneTarget::External("example.org".to_owned())),
        ],
    )
}

/// `dig`'s way of putting it: code, answers, then additionals after a `+`.
fn ask(name: &str, kind: RecordType) -> String {
    let origin = Origin {
        domain: Name::from_ascii("cluster.local.").unwrap(),
        service_ips: vec!["10.43.0.10".parse().unwrap()],
    };
    let name = Name::from_ascii(name).unwrap();
    let Some(answer) = answer(&origin, &zone(), &name, kind) else {
        return "not ours".to_owned();
    };
    let has_soa = answer.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
    assert_eq!(has_soa, answer.answers.is_empty(), "a SOA goes with an empty answer and only then");
    let lines = |records: &[Record]| -> Vec<String> {
        records
            .iter()
            .map(|record| {
                assert_eq!(record.ttl, TTL_SECS);
                format!("{} {}", record.record_type(), record.data)
            })
            .collect()
    };
    let mut text = match (answer.code, answer.answers.is_empty()) {
        (ResponseCode::NXDomain, true) => "NXDOMAIN".to_owned(),
        (ResponseCode::NoError, true) => "NODATA".to_owned(),
        (ResponseCode::NoError, false) => lines(&answer.answers).join("; "),
        odd => format!("{odd:?}"),
    };
    if !answer.additionals.is_empty() {
        text += " + ";
        text += &lines(&answer.additionals).join("; ");
    }
    text
}

#[test]
fn answers_as_the_specification_has_it() {
    use RecordType::{A, AAAA, CNAME, MX, NS, SOA, SRV, TXT};
    for (name, kind, expected) in [
        // Services with an address of their own.
        ("web.default.svc.cluster.local.", A, "A 10.43.0.80"),
        ("WEB.Default.SVC.cluster.LOCAL.", A, "A 10.43.0.80"),
        ("web.default.svc.cluster.local.", AAAA, "AAAA fd00:43::80"),
        ("web.default.svc.cluster.local.", MX, "NODATA"),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            SRV,
            "SRV 0 100 80 web.default.svc.cluster.local. + A 10.43.0.80; AAAA fd00:43::80",
        ),
        (
            "web.default.svc.cluster.local.",
            SRV,
            "SRV 0 50 80 web.default.svc.cluster.local.; SRV 0 50 443 web.default.svc.cluster.local. \
             + A 10.43.0.80; AAAA fd00:43::80",
        ),
        ("_http._tcp.web.default.svc.cluster.local.", A, "NODATA"),
        ("_http._udp.web.default.svc.cluster.local.", SRV, "NXDOMAIN"),
        ("_tcp.web.default.svc.cluster.local.", A, "NODATA"),
        ("_sctp.web.default.svc.cluster.local.", A, "NXDOMAIN"),
        ("x.web.default.svc.cluster.local.", A, "NXDOMAIN"),
        // Headless services.
        ("db.default.svc.cluster.local.", A, "A 10.42.0.5; A 10.42.1.6"),
        ("db.default.svc.cluster.local.", AAAA, "NODATA"),
        ("db-0.db.default.svc.cluster.local.", A, "A 10.42.0.5"),
        ("10-42-1-6.db.default.svc.cluster.local.", A, "A 10.42.1.6"),
        ("10-42-0-5.db.default.svc.cluster.local.", A, "NXDOMAIN"),
        (
            "_sql._tcp.db.default.svc.cluster.local.",
            SRV,
            "SRV 0 50 5432 10-42-1-6.db.default.svc.cluster.local.; \
             SRV 0 50 5432 db-0.db.default.svc.cluster.local. + A 10.42.1.6; A 10.42.0.5",
        ),
        ("none.default.svc.cluster.local.", A, "NXDOMAIN"),
        // Aliases.
        ("out.default.svc.cluster.local.", A, "CNAME example.org."),
        ("out.default.svc.cluster.local.", CNAME, "CNAME example.org."),
        // What is not there, and what is only on the way to something.
        ("nope.default.svc.cluster.local.", A, "NXDOMAIN"),
        ("web.nope.svc.cluster.local.", A, "NXDOMAIN"),
        ("default.svc.cluster.local.", A, "NODATA"),
        ("empty.svc.cluster.local.", A, "NODATA"),
        ("nope.svc.cluster.local.", A, "NXDOMAIN"),
        ("svc.cluster.local.", A, "NODATA"),
        ("example.org.cluster.local.", A, "NXDOMAIN"),
        ("example.org.svc.cluster.local.", A, "NXDOMAIN"),
        ("example.org.default.svc.cluster.local.", A, "NXDOMAIN"),
        // Pods.
        ("10-42-0-5.default.pod.cluster.local.", A, "A 10.42.0.5"),
        ("10-42-0-5.default.pod.cluster.local.", AAAA, "NODATA"),
        ("fd00--5.default.pod.cluster.local.", AAAA, "AAAA fd00::5"),
        ("10-42-0-5.nope.pod.cluster.local.", A, "NXDOMAIN"),
        ("10-42-0.default.pod.cluster.local.", A, "NXDOMAIN"),
        // The zone itself.
        ("dns-version.cluster.local.", TXT, "TXT 1.1.0"),
        ("cluster.local.", A, "NODATA"),
        ("cluster.local.", NS, "NS ns.dns.cluster.local. + A 10.43.0.10"),
        ("ns.dns.cluster.local.", A, "A 10.43.0.10"),
        (
            "cluster.local.",
            SOA,
            "SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
        ),
        ("example.org.", A, "not ours"),
        ("local.", A, "not ours"),
        ("xcluster.local.", A, "not ours"),
    ] {
        assert_eq!(ask(name, kind), expected, "{kind} {name}");
    }
}

#[test]
fn knows_the_names_of_addresses() {
    for (name, kind, expected) in [
        ("80.0.43.10.in-addr.arpa.", RecordType::PTR, "PTR web.default.svc.cluster.local."),
        ("5.0.42.10.in-addr.arpa.", RecordType::PTR, "PTR db-0.db.default.svc.cluster.local."),
        ("6.1.42.10.in-addr.arpa.", RecordType::PTR, "PTR 10-42-1-6.db.default.svc.cluster.local."),
        ("6.1.42.10.in-addr.arpa.", RecordType::A, "NODATA"),
        (
            "0.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.0.0.0.0.d.f.ip6.arpa.",
            RecordType::PTR,
            "PTR web.default.svc.cluster.local.",
        ),
        ("1.1.168.192.in-addr.arpa.", RecordType::PTR, "not ours"),
        ("43.10.in-addr.arpa.", RecordType::PTR, "not ours"),
    ] {
        assert_eq!(ask(name, kind), expected, "{kind} {name}");
    }
}
