//! The way of a server's own commands to its API.

use std::path::PathBuf;

use http::Request;
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::kubeconfig;
use crate::config::Common;
use crate::failure::{Failure, Hint, Outcome, While};
use crate::join::Secrets;
use crate::join::protocol::{CHANGE, Change, Changed, Refusal};
use crate::tls;

/// The largest answer of a server to one of its commands, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The administrator of the cluster whose server is on this board.
pub struct Admin {
    /// The API, as the administrator.
    pub client: kube::Client,
    folder: PathBuf,
}

impl Admin {
    /// Takes the administrator's kubeconfig of the server on this board.
    pub async fn open(common: &Common) -> Outcome<Admin> {
        tls::install_provider();
        let path = kubeconfig::path(&common.data_dir);
        let doing = || format!("reading {}", path.display());
        let config = Kubeconfig::read_from(&path)
            .doing(doing)
            .hint(|| "run this on a server, as root, with its --data-dir".into())?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await.doing(doing)?;
        let client = kube::Client::try_from(config).doing(doing)?;
        Ok(Admin { client, folder: common.data_dir.join("server") })
    }

    /// The cluster's secrets, as the server on this board keeps them.
    pub fn secrets(&self) -> Outcome<Secrets> {
        Secrets::kept(&self.folder)?.ok_or_else(|| {
            Failure::new(format!("no server has run in {}", self.folder.display()))
                .hint("start one with `coracle server`, or name its folder with --data-dir")
        })
    }

    /// Has the server change the cluster's keys.
    pub async fn change(&self, change: &Change) -> Outcome<Changed> {
        self.post(CHANGE, change).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, question: &impl Serialize) -> Outcome<T> {
        let doing = || "asking the server on this board".to_owned();
        let body = serde_json::to_vec(question).doing(doing)?;
        let request = Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .doing(doing)?;
        let answer = self
            .client
            .send(request)
            .await
            .doing(doing)
            .hint(|| "see that it runs: `systemctl status coracle`".into())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.doing(doing)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).doing(doing);
        }
        let refusal: Refusal = serde_json::from_slice(&body)
            .doing(|| format!("the server answered {status} and no more"))
            .hint(|| "see whether it is of the same release as this `coracle`".into())?;
        Err(refusal.into())
    }
}
