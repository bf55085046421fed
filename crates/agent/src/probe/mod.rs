//! Probes of running containers: one task per probe, asleep on a timer between two looks.

mod grpc;
pub mod http;
mod insecure;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::ContainerId;
use tokio::task::AbortHandle;

use crate::pod::view::{RunState, init_containers, is_sidecar, spec};
use crate::worker::Shared;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Whether the container has come up; the others wait for it.
    Startup,
    /// Whether it takes traffic.
    Readiness,
    /// Whether it must be restarted.
    Liveness,
}

impl Purpose {
    fn title(self) -> &'static str {
        match self {
            Purpose::Startup => "Startup",
            Purpose::Readiness => "Readiness",
            Purpose::Liveness => "Liveness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Purpose::Startup => container.startup_probe.as_ref(),
            Purpose::Readiness => container.readiness_probe.as_ref(),
            Purpose::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// The probe tasks of one pod.
#[derive(Default)]
pub struct Probers {
    tasks: HashMap<(String, Purpose), (String, AbortHandle)>,
}

impl Drop for Probers {
    fn drop(&mut self) {
        self.tasks.values().for_each(|(_, task)| task.abort());
    }
}

impl Probers {
    /// Makes exactly those probes run that should: of running containers, liveness and
    /// readiness only once the container has started up.
    pub(crate) fn keep(&mut self, shared: &Arc<Shared>, pod: &Arc<Pod>, pod_runs: bool) {
        let mut wanted: HashMap<(String, Purpose), (String, Timestamp)> = HashMap::new();
        if pod_runs {
            let state = shared.state();
            let sidecars = init_containers(pod).iter().filter(|c| is_sidecar(c));
            for container in spec(pod).containers.iter().chain(sidecars) {
                let Some(slot) = state.view.slots.get(&container.name) else { continue };
                let Some(run) = slot.current.as_ref().filter(|r| r.state == RunState::Running)
                else {
                    continue;
                };
                for purpose in [Purpose::Startup, Purpose::Readiness, Purpose::Liveness] {
                    let due = (purpose == Purpose::Startup) != slot.started;
                    let judged = slot.condemned.as_ref().is_some_and(|(id, _)| *id == run.id);
                    if due && !judged && purpose.of(container).is_some() {
                        let key = (container.name.clone(), purpose);
                        let start = run.started.unwrap_or(run.created);
                        wanted.insert(key, (run.id.clone(), start));
                    }
                }
            }
        }
        self.tasks.retain(|key, (run, task)| {
            let keep = wanted.get(key).is_some_and(|(id, _)| id == run);
            if !keep {
                task.abort();
            }
            keep
        });
        for ((name, purpose), (run, start)) in wanted {
            self.tasks.entry((name.clone(), purpose)).or_insert_with(|| {
                let job = Job { shared: shared.clone(), name, purpose, run: run.clone(), start };
                (run, tokio::spawn(job.run()).abort_handle())
            });
        }
    }
}

/// One probe of one run of a container.
struct Job {
    shared: Arc<Shared>,
    name: String,
    purpose: Purpose,
    run: String,
    start: Timestamp,
}

fn seconds(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

impl Job {
    async fn run(self) {
        let pod = self.shared.pod();
        let Some(container) = crate::pod::view::container(&pod, &self.name).cloned() else {
            return;
        };
        let Some(probe) = self.purpose.of(&container).cloned() else { return };
        let delay = i64::from(probe.initial_delay_seconds.unwrap_or(0).max(0));
        let first = self.start + SignedDuration::from_secs(delay);
        let wait = first.duration_since(Timestamp::now());
        tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        let period = Duration::from_secs(u64::from(seconds(probe.period_seconds, 10)));
        let mut timer = tokio::time::interval(period);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = Count::default();
        loop {
            timer.tick().await;
            let outcome = self.once(&container, &probe).await;
            let told = match &outcome {
                Ok(None) => None,
                Ok(Some(warning)) => Some(("ProbeWarning", "warning", warning)),
                Err(message) => Some(("Unhealthy", "failed", message)),
            };
            if let Some((reason, what, message)) = told {
                let note = format!("{} probe {what}: {message}", self.purpose.title());
                let name = Some(self.name.as_str());
                self.shared.ctx.event(&pod, name, EventKind::Warning, reason, &note);
            }
            let verdict = count.add(outcome.is_ok(), &probe);
            if let Some(healthy) = verdict
                && self.conclude(healthy)
            {
                return;
            }
        }
    }

    /// Looks once; a warning is no failure.
    async fn once(&self, container: &Container, probe: &Probe) -> Result<Option<String>, String> {
        let limit = Duration::from_secs(u64::from(seconds(probe.timeout_seconds, 1)));
        let ip = self.shared.ips().first().copied();
        if let Some(exec) = &probe.exec {
            let argv = exec.command.clone().unwrap_or_default();
            return self.exec(argv, limit).await.map(|()| None);
        }
        if let Some(wanted) = &probe.http_get {
            let target = http::Target::new(container, wanted, ip)?;
            let answer = http::get(&target, Some(limit)).await?;
            return match answer.code {
                200..300 => Ok(None),
                300..400 => {
                    Ok(Some(format!("Probe terminated redirects, Response body: {}", answer.body)))
                }
                code => Err(format!("HTTP probe failed with statuscode: {code}")),
            };
        }
        if let Some(socket) = &probe.tcp_socket {
            let host = socket.host.as_deref().and_then(|h| h.parse().ok()).or(ip);
            let host = host.ok_or("the pod has no address")?;
            let address = SocketAddr::new(host, port_number(container, &socket.port)?);
            let timed = tokio::time::timeout(limit, tcp(address)).await;
            let late = || Err(format!("dial tcp {address}: i/o timeout"));
            return timed.unwrap_or_else(|_| late()).map(|()| None);
        }
        if let Some(wanted) = &probe.grpc {
            let host: IpAddr = ip.ok_or("the pod has no address")?;
            let port = u16::try_from(wanted.port).map_err(|_| "invalid port".to_owned())?;
            let service = wanted.service.as_deref().unwrap_or_default();
            let check = grpc::check(SocketAddr::new(host, port), service);
            let late = || Err(format!("timeout: health rpc did not complete within {limit:?}"));
            let timed = tokio::time::timeout(limit, check).await;
            return timed.unwrap_or_else(|_| late()).map(|()| None);
        }
        Ok(None)
    }

    async fn exec(&self, argv: Vec<String>, limit: Duration) -> Result<(), String> {
        let shown = argv.join(" ");
        let id = ContainerId(self.run.clone());
        match self.shared.ctx.runtime.exec_sync(&id, argv, limit).await {
            Ok(output) if output.code == 0 => Ok(()),
            Ok(output) => {
                Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
            }
            Err(runtime::Error::Timeout { seconds, .. }) => {
                Err(format!("command timed out: {shown:?} timed out after {seconds}s"))
            }
            Err(error) => Err(base::chain(&error).to_string()),
        }
    }

    /// Notes what the probe has come to; true when the probe has nothing more to say.
    fn conclude(&self, healthy: bool) -> bool {
        let mut state = self.shared.state();
        let Some(slot) = state.view.slots.get_mut(&self.name) else { return true };
        if slot.current.as_ref().is_none_or(|run| run.id != self.run) {
            return true;
        }
        let (changed, over) = match (self.purpose, healthy) {
            (Purpose::Readiness, _) => {
                (std::mem::replace(&mut slot.ready, healthy) != healthy, false)
            }
            (Purpose::Startup, true) => (!std::mem::replace(&mut slot.started, true), true),
            (Purpose::Liveness, true) => (false, false),
            (purpose, false) => {
                let what = purpose.title().to_lowercase();
                let message =
                    format!("Container {} failed {what} probe, will be restarted", self.name);
                slot.condemned = Some((self.run.clone(), message));
                (true, true)
            }
        };
        drop(state);
        if changed {
            self.shared.look_again();
        }
        over
    }
}

/// Results in a row.
#[derive(Default)]
struct Count {
    last: Option<bool>,
    run: u32,
}

impl Count {
    /// Adds a result; gives a verdict once a threshold is reached.
    fn add(&mut self, healthy: bool, probe: &Probe) -> Option<bool> {
        self.run = if self.last == Some(healthy) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(healthy);
        let threshold = match healthy {
            true => seconds(probe.success_threshold, 1),
            false => seconds(probe.failure_threshold, 3),
        };
        (self.run >= threshold).then_some(healthy)
    }
}

/// A port by number, or by the name that the container gives it.
pub fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("invalid port number: {port:?}"))
}

/// Opens and closes a connection.
pub async fn tcp(address: SocketAddr) -> Result<(), String> {
    let stream = tokio::net::TcpStream::connect(address).await;
    stream.map(drop).map_err(|error| dial(address, &error))
}

/// A failed connection in the words that people know from probes.
fn dial(address: SocketAddr, error: &std::io::Error) -> String {
    let text = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: connect: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_in_a_row() {
        let probe =
            Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Probe::default() };
        let mut count = Count::default();
        let verdicts: Vec<_> = [false, true, false, false, false, true, true]
            .into_iter()
            .map(|healthy| count.add(healthy, &probe))
            .collect();
        let (no, yes) = (Some(false), Some(true));
        assert_eq!(verdicts, [None, None, None, no, no, None, yes]);
    }

    #[test]
    fn ports_by_name() {
        let container: Container = serde_json::from_value(serde_json::json!(
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}))
        .unwrap();
        let of = |port| port_number(&container, &port);
        assert_eq!(of(IntOrString::String("http".into())), Ok(8080));
        assert_eq!(of(IntOrString::Int(80)), Ok(80));
        assert!(of(IntOrString::String("nope".into())).is_err());
        assert!(of(IntOrString::Int(0)).is_err());
    }
}
