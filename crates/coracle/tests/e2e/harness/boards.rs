//! What the scenarios of several boards need, however the boards were made.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::kubectl::Kubectl;
use super::netns::Netns;
use super::wait::within;

/// What a cluster of several boards may take to recover from anything, on two busy cores.
pub const RECOVERY: Duration = Duration::from_secs(120);

/// A cluster of several boards, whose cables and plugs are at hand.
pub trait Boards: Sync {
    /// Where its user sits.
    fn laptop(&self) -> &Netns;

    /// The user's kubeconfig: with the virtual address, if there is one.
    fn kubeconfig(&self) -> PathBuf;

    /// A folder of the user's own.
    fn home(&self) -> PathBuf;

    /// The servers' names.
    fn servers(&self) -> Vec<String>;

    /// The address of the nth server, from 1.
    fn address(&self, server: usize) -> String;

    /// Pulls a board's network cable.
    fn unplug(&self, board: &str);

    /// Puts it back.
    fn plug(&self, board: &str);

    /// Takes the power from all boards.
    fn power_off(&self);

    /// Gives it back to one.
    fn power_on(&self, board: &str);

    /// kubectl as the user has it.
    fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::at(self.laptop(), self.kubeconfig(), self.home())
    }

    /// kubectl at one server.
    fn kubectl_at(&self, server: usize) -> Kubectl<'_> {
        let server = Some(format!("https://{}:6443", self.address(server)));
        Kubectl { server, ..self.kubectl() }
    }

    /// A client of the admin at each server.
    async fn clients(&self) -> Vec<(String, kube::Client)> {
        let mut clients = Vec::new();
        for (position, name) in self.servers().into_iter().enumerate() {
            let config = kube::config::Kubeconfig::read_from(self.kubeconfig());
            let mut config = config.expect("a kubeconfig");
            let cluster = config.clusters[0].cluster.as_mut().expect("a cluster");
            cluster.server = Some(format!("https://{}:6443", self.address(position + 1)));
            let options = kube::config::KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(config, &options).await;
            let client = kube::Client::try_from(config.expect("a configuration"));
            clients.push((name, client.expect("a client")));
        }
        clients
    }

    /// Waits until exactly these nodes are ready, as the cluster says at the user's address.
    fn until_ready(&self, wanted: &[&str]) -> Duration {
        self.until_ready_at(&self.kubectl(), wanted)
    }

    /// As `until_ready`, asked through a certain kubectl.
    fn until_ready_at(&self, kubectl: &Kubectl, wanted: &[&str]) -> Duration {
        let begun = Instant::now();
        let conditions = "{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status}";
        let line = format!(
            "get nodes --request-timeout=3s -o 'jsonpath={{range .items[*]}}{conditions},{{end}}'"
        );
        let wanted: Vec<String> = wanted.iter().map(|name| format!("{name} True")).collect();
        within(RECOVERY, &format!("{wanted:?} alone are ready"), || {
            let run = kubectl.run(&line);
            let mut ready: Vec<&str> =
                run.stdout.split(',').filter(|node| node.ends_with(" True")).collect();
            ready.sort_unstable();
            if ready == wanted { Ok(()) } else { Err(run) }
        });
        begun.elapsed()
    }
}
