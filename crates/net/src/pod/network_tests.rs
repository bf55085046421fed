use std::os::unix::fs::MetadataExt;

use super::*;

struct Fixture {
    links: links::Recorder,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { links: links::Recorder::default(), folder: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Result<PodNetwork, PodNetworkError> {
        let config = PodNetworkConfig {
            pod_cidrs: vec!["10.42.0.0/24".parse().unwrap()],
            state_dir: self.folder.path().join("deep/er"),
            ..PodNetworkConfig::default()
        };
        let firewall = Box::new(firewall::Recorder::default());
        PodNetwork::with(config, Box::new(self.links.clone()), firewall).await
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("deep/er/pod-addresses.json")
    }
}

fn address(attachment: &Attachment) -> String {
    attachment.addresses[0].to_string()
}

#[tokio::test]
async fn sets_up_the_bridge_then_the_kernel_parameters() {
    let fixture = Fixture::new();
    fixture.open().await.unwrap();
    assert_eq!(
        fixture.links.take(),
        [
            "uplink mtu",
            "bridge coracle0 [(10.42.0.1, 24)] mtu 1480",
            "net/ipv4/ip_forward = 1",
            "net/ipv4/conf/coracle0/rp_filter = 2",
            "net/ipv4/conf/all/send_redirects = 0",
            "net/ipv4/conf/coracle0/send_redirects = 0",
        ]
    );
}

#[tokio::test]
async fn the_address_is_on_disk_before_the_interface_exists_and_is_written_once() {
    let fixture = Fixture::new();
    let network = fixture.open().await.unwrap();
    *fixture.links.failing.lock().unwrap() = Some("pod");
    let error = network.attach("a", Path::new("/ns/a")).await.unwrap_err();
    assert_eq!(error.to_string(), "attaching to the pod network /ns/a");
    let written = std::fs::metadata(fixture.file()).unwrap().ino();
    *fixture.links.failing.lock().unwrap() = None;
    // The next try, also of the next process, has the same address and writes nothing.
    assert_eq!(address(&network.attach("a", Path::new("/ns/a")).await.unwrap()), "10.42.0.2");
    let network = fixture.open().await.unwrap();
    assert_eq!(address(&network.attach("a", Path::new("/ns/a")).await.unwrap()), "10.42.0.2");
    assert_eq!(std::fs::metadata(fixture.file()).unwrap().ino(), written);
    assert_eq!(address(&network.attach("b", Path::new("/ns/b")).await.unwrap()), "10.42.0.3");
    assert_ne!(std::fs::metadata(fixture.file()).unwrap().ino(), written);
}

#[tokio::test]
async fn an_address_is_freed_only_once_its_interface_is_gone() {
    let fixture = Fixture::new();
    let network = fixture.open().await.unwrap();
    network.attach("a", Path::new("/ns/a")).await.unwrap();
    *fixture.links.failing.lock().unwrap() = Some("remove");
    network.detach("a").await.unwrap_err();
    assert!(network.attachment("a").is_some());
    *fixture.links.failing.lock().unwrap() = None;
    network.detach("a").await.unwrap();
    assert!(network.attachment("a").is_none());
}

#[tokio::test]
async fn strays_of_ours_go_and_ports_of_others_stay() {
    let fixture = Fixture::new();
    let network = fixture.open().await.unwrap();
    network.attach("a", Path::new("/ns/a")).await.unwrap();
    fixture.links.take();
    let live = HashSet::from(["a".to_owned()]);
    assert!(network.retain(&live).await.unwrap().is_empty());
    assert_eq!(fixture.links.take(), ["remove cor-stray"]);
}

#[tokio::test]
async fn a_file_that_is_no_json_is_put_aside() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.file().parent().unwrap()).unwrap();
    std::fs::write(fixture.file(), "{\"last\":").unwrap();
    let network = fixture.open().await.unwrap();
    assert_eq!(address(&network.attach("a", Path::new("/ns/a")).await.unwrap()), "10.42.0.2");
    assert!(fixture.file().with_extension("json.unreadable").exists());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_stops_the_start() {
    let fixture = Fixture::new();
    std::fs::write(fixture.folder.path().join("deep"), "a file").unwrap();
    let error = fixture.open().await.unwrap_err();
    assert!(matches!(error, PodNetworkError::State { .. }), "{error}");
}
