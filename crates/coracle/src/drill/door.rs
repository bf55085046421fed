use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::failure::{Outcome, While};

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(900);

/// A way to the API. A connection that has fallen silent is given up for a new one, as whoever
/// runs kubectl again does: an old one would wait for TCP to try again, long after all is well.
pub struct Door {
    config: Config,
    client: Mutex<Client>,
}

impl Door {
    /// The way that a kubeconfig describes.
    pub async fn new(kubeconfig: &str) -> Outcome<Door> {
        let doing = || "reading the kubeconfig".to_owned();
        let parsed = Kubeconfig::from_yaml(kubeconfig).doing(doing)?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(parsed, &options).await.doing(doing)?;
        let client = Client::try_from(config.clone()).doing(|| "setting up TLS".into())?;
        Ok(Door { config, client: Mutex::new(client) })
    }

    /// The present client.
    pub fn client(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on over a new connection.
    pub fn renew(&self) {
        if let Ok(client) = Client::try_from(self.config.clone()) {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        }
    }

    /// Whether the API server behind it calls itself ready.
    pub async fn is_ready(&self) -> bool {
        let Ok(request) = Request::get("/readyz").body(Vec::new()) else { return false };
        let client = self.client();
        let asking = tokio::time::timeout(PATIENCE, client.request_text(request));
        let ready = matches!(asking.await, Ok(Ok(_)));
        if !ready {
            self.renew();
        }
        ready
    }
}
