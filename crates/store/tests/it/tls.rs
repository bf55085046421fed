//! TLS with real servers: who is trusted, who is let in, and who is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use store::{Datastore, Expect, OpenError, Options, Store, TlsFiles};

use crate::etcds::Etcds;
use crate::process::Folder;
use crate::sqls::{Kind, Sql};
use crate::support::{Json, key, value};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
}

/// Files of an authority and of a certificate that it has signed for this address.
fn files(folder: &Path, name: &str, by: &Authority) -> TlsFiles {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    let key = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&key, by).expect("a certificate");
    let write = |kind: &str, text: String| {
        let path = folder.join(format!("{name}.{kind}"));
        std::fs::write(&path, text).expect("write a file");
        // PostgreSQL insists on owning its key alone.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("protect it");
        std::os::unix::fs::chown(&path, Some(65_534), None).expect("give it");
        Some(path)
    };
    TlsFiles {
        ca: write("ca", by.pem()),
        cert: write("cert", cert.pem()),
        key: write("key", key.serialize_pem()),
    }
}

fn shown(path: &Option<PathBuf>) -> String {
    path.as_ref().expect("a file").display().to_string()
}

async fn open(datastore: &Datastore) -> Result<Store, OpenError> {
    Store::open(datastore.driver(), Arc::new(Json), Options::default()).await.map(|s| s.0)
}

async fn works(datastore: Datastore) {
    let store = open(&datastore).await.unwrap_or_else(|e| panic!("{}", base::chain(&e)));
    store.put(key("a"), Expect::Any, value("1")).await.unwrap();
    store.barrier().await.unwrap();
    store.close().await.unwrap();
}

/// Who is not trusted must not get so far as to wait for anything else.
async fn is_refused(datastore: Datastore, word: &str) {
    let patience = std::time::Duration::from_secs(8);
    match tokio::time::timeout(patience, open(&datastore)).await {
        Ok(Ok(_)) => panic!("{datastore} was let in or trusted"),
        Ok(Err(error)) => {
            let said = base::chain(&error).to_string();
            assert!(said.to_lowercase().contains(word), "{said}");
        }
        Err(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_lets_in_whom_its_authority_has_signed() {
    let folder = Folder::new("tls");
    let (ours, other) = (authority(), authority());
    let server = files(&folder.path, "server", &ours);
    let flags = [
        format!("--cert-file={}", shown(&server.cert)),
        format!("--key-file={}", shown(&server.key)),
        format!("--trusted-ca-file={}", shown(&server.ca)),
        "--client-cert-auth=true".into(),
    ];
    let etcds = Etcds::start_with(1, &flags);
    let url = &etcds.members[0].url;
    let at = |files| Datastore::parse(url, files, Path::new("")).expect("an endpoint");
    let client = files(&folder.path, "client", &ours);
    works(at(client.clone())).await;
    let stranger = files(&folder.path, "stranger", &other);
    is_refused(at(TlsFiles { ca: client.ca.clone(), ..stranger.clone() }), "etcd").await;
    is_refused(at(TlsFiles { ca: stranger.ca, ..client.clone() }), "etcd").await;
    is_refused(at(TlsFiles { cert: None, key: None, ..client }), "etcd").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_servers_are_verified_as_asked() {
    let folder = Folder::new("tls");
    std::os::unix::fs::chown(&folder.path, Some(65_534), None).expect("give the folder");
    let (ours, other) = (authority(), authority());
    let server = files(&folder.path, "server", &ours);
    let stranger = files(&folder.path, "stranger", &other);
    for (kind, plain, encrypted) in [
        (Kind::Postgres, "?sslmode=disable", "?sslmode=require"),
        (Kind::Mysql, "?tls=false", "?tls=skip-verify"),
    ] {
        let (cert, key) = (shown(&server.cert), shown(&server.key));
        let sql = Sql::start_with(kind, |_| match kind {
            Kind::Postgres => [
                "ssl=on".to_owned(),
                format!("ssl_cert_file={cert}"),
                format!("ssl_key_file={key}"),
            ]
            .into_iter()
            .flat_map(|setting| ["-c".to_owned(), setting])
            .collect(),
            Kind::Mysql => vec![
                format!("--ssl-cert={cert}"),
                format!("--ssl-key={key}"),
                "--require-secure-transport=on".into(),
            ],
        });
        let at = |options: &str, ca: Option<PathBuf>| {
            let endpoint = format!("{}{options}", sql.endpoint("tls", sql.port()));
            let files = TlsFiles { ca, ..TlsFiles::default() };
            Datastore::parse(&endpoint, files, Path::new("")).expect("an endpoint")
        };
        works(at(encrypted, None)).await;
        works(at("", server.ca.clone())).await;
        is_refused(at("", stranger.ca.clone()), "certificate").await;
        match kind {
            Kind::Postgres => works(at(plain, None)).await,
            Kind::Mysql => is_refused(at(plain, None), "denied").await,
        }
    }
}
