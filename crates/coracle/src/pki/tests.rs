use super::*;

fn server(names: &[&str], life: Duration) -> Identity<'static> {
    Identity {
        file: "serving",
        signer: Signer::Server,
        common_name: "coracle",
        organization: None,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        life,
    }
}

#[test]
fn a_leaf_is_kept_until_its_names_or_its_authority_change() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let pki = Pki::new(folder.path(), secrets()).expect("new keys");
    let first = pki.leaf(server(&["a", "10.0.0.1"], LEAF_LIFE)).expect("leaf");
    let again = pki.leaf(server(&["10.0.0.1", "a"], LEAF_LIFE)).expect("leaf");
    assert_eq!(first.cert, again.cert, "unchanged names keep the certificate");
    let renamed = pki.leaf(server(&["a", "10.0.0.2"], LEAF_LIFE)).expect("leaf");
    assert_ne!(first.cert, renamed.cert);

    let reopened = Pki::new(folder.path(), pki.secrets.clone()).expect("the same keys");
    let kept = reopened.leaf(server(&["a", "10.0.0.2"], LEAF_LIFE)).expect("leaf");
    assert_eq!(kept.cert, renamed.cert);
}

#[test]
fn a_leaf_with_less_than_a_third_of_its_life_left_is_made_anew() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let pki = Pki::new(folder.path(), secrets()).expect("new keys");
    let short = pki.leaf(server(&["a"], LEAF_LIFE / 4)).expect("leaf");
    let renewed = pki.leaf(server(&["a"], LEAF_LIFE)).expect("leaf");
    assert_ne!(short.cert, renewed.cert);
}

#[test]
fn a_node_cannot_pose_as_a_server() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, UnixTime};
    use trust::Judge;

    let secrets = secrets();
    let trusted = |servers: &crate::tls::TrustedServers, organization| {
        let identity = Identity { organization, ..server(&["board"], LEAF_LIFE) };
        let leaf = secrets.server_ca.sign(&identity).expect("a leaf");
        let leaf = CertificateDer::from_pem_slice(leaf.cert.as_bytes()).expect("DER");
        let name = "board".try_into().expect("a name");
        servers.judge(&leaf, &[], &name, &[], UnixTime::now()).is_ok()
    };
    let bundle = secrets.server_ca.bundle();
    let servers = crate::tls::TrustedServers::new(&bundle).expect("an authority");
    let nodes = crate::tls::TrustedServers::nodes(&bundle).expect("an authority");
    assert!(trusted(&servers, None));
    assert!(!trusted(&servers, Some("system:nodes")));
    assert!(trusted(&nodes, Some("system:nodes")));
    servers.set(&bundle).expect("an authority");
    assert!(!trusted(&servers, Some("system:nodes")), "also after a change");
}

#[test]
fn clients_are_told_which_authorities_count() {
    use rustls::server::danger::ClientCertVerifier;

    let authority = crate::pki::AuthorityKeys::new("client-ca").expect("an authority");
    let clients = crate::tls::TrustedClients::new(&authority.bundle()).expect("trust");
    let names = |clients: &crate::tls::TrustedClients| -> Vec<Vec<u8>> {
        clients.root_hint_subjects().iter().map(|name| name.as_ref().to_vec()).collect()
    };
    let first = names(&clients);
    let text = String::from_utf8_lossy(&first[0]).into_owned();
    assert!(text.contains("client-ca@"), "{text}");
    let renewed = authority.renewed("client-ca").expect("another authority");
    clients.set(&renewed.bundle()).expect("trust");
    assert_eq!(names(&clients)[1..], first, "a newer one, and the older still");
    let place = clients.root_hint_subjects().as_ptr();
    clients.set(&renewed.bundle()).expect("trust");
    assert_eq!(clients.root_hint_subjects().as_ptr(), place, "nothing new, nothing kept");
}

fn secrets() -> Arc<Secrets> {
    let settings = crate::join::Equal {
        cluster_cidr: "10.42.0.0/16".into(),
        service_cidr: "10.43.0.0/16".into(),
        cluster_dns: "10.43.0.10".into(),
        cluster_domain: "cluster.local".into(),
        vxlan_vni: None,
        vxlan_port: None,
    };
    Arc::new(Secrets::new(settings, None, None).expect("new secrets"))
}

#[test]
fn a_lost_authority_key_stops_the_start_with_a_hint() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let secrets = secrets();
    Pki::new(&folder.path().join("tls"), secrets.clone()).expect("new keys");
    let read = || Secrets::read(folder.path(), &secrets.settings);
    let imported = read().expect("readable").expect("there").0;
    assert_eq!(imported.client_ca.cert, secrets.client_ca.cert);
    assert_eq!(imported.service_account_key, secrets.service_account_key);
    fs::remove_file(folder.path().join("tls/client-ca.key")).expect("removed");
    let failure = read().expect_err("refused");
    assert!(failure.to_string().contains("client-ca.key"), "{failure}");
}

#[test]
fn a_new_authority_has_leaves_made_anew_with_a_way_from_the_old_one() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let pki = Pki::new(folder.path(), secrets()).expect("new keys");
    let first = pki.leaf(server(&["a"], LEAF_LIFE)).expect("leaf");
    let mut rotated = Secrets::clone(&pki.secrets);
    rotated.rotate_authorities().expect("rotated");
    let pki = Pki::new(folder.path(), Arc::new(rotated.clone())).expect("keys");
    let second = pki.leaf(server(&["a"], LEAF_LIFE)).expect("leaf");
    assert_ne!(first.cert, second.cert);
    let pems = |text: &str| text.matches("BEGIN CERTIFICATE").count();
    assert_eq!((pems(&second.cert), pems(&pki.server_bundle())), (2, 2));
    rotated.finish();
    let pki = Pki::new(folder.path(), Arc::new(rotated)).expect("keys");
    let third = pki.leaf(server(&["a"], LEAF_LIFE)).expect("leaf");
    assert_eq!(third.cert, second.cert, "the end of the old one costs nobody a certificate");
    assert_eq!(pems(&pki.server_bundle()), 1);
}
