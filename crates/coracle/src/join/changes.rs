//! What an administrator may change of the cluster's keys while it runs.

use http::StatusCode;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use store::Store;

use super::protocol::{Change, Changed, Refusal};
use super::trust::GENERATION;
use super::{Credential, Secrets, Token, shared};
use crate::etcd;
use crate::failure::Failure;

/// Makes a change for all servers.
pub async fn make(
    store: &Store,
    client: &Client,
    etcd: Option<&etcd::Place>,
    present: &Secrets,
    change: Change,
) -> Result<Changed, Refusal> {
    match &change {
        Change::Authorities if present.is_rotating() => {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "an authority is being replaced already",
                "end that first: `coracle certificate rotate-ca --finish`",
            ));
        }
        Change::Finish { .. } if !present.is_rotating() => {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "no authority is being replaced",
                "begin with `coracle certificate rotate-ca`",
            ));
        }
        Change::Finish { force: false } => {
            must_have_confirmed(client, present).await?;
            if let Some(place) = etcd {
                members_must_trust(place, present).await?;
            }
        }
        _ => {}
    }
    let made = shared::change(store, present, |secrets| match &change {
        Change::ServerToken { token } => {
            secrets.server_token.clone_from(token);
            Ok(())
        }
        Change::Leaves => {
            secrets.renew_leaves();
            Ok(())
        }
        Change::Authorities => secrets.rotate_authorities(),
        Change::Finish { .. } => {
            secrets.finish();
            Ok(())
        }
    });
    let secrets = made.await.map_err(|failure: Failure| Refusal::internal(&failure))?;
    let token = |credential| Token::new(&secrets.server_ca.cert, credential).to_string();
    Ok(Changed {
        generation: secrets.generation,
        server_token: token(Credential::Server(secrets.server_token.clone())),
        agent_token: token(Credential::Node(secrets.agent_token.clone())),
    })
}

/// Refuses while a node has not said that it has certificates of the new authorities.
async fn must_have_confirmed(client: &Client, present: &Secrets) -> Result<(), Refusal> {
    let api: Api<Node> = Api::all(client.clone());
    let nodes = api.list(&ListParams::default()).await.map_err(|e| Refusal::internal(&e))?;
    let missing: Vec<String> = nodes
        .iter()
        .filter(|node| {
            let confirmed = node.annotations().get(GENERATION);
            confirmed.and_then(|text| text.parse().ok()).unwrap_or(0) < present.generation
        })
        .map(ResourceExt::name_any)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::CONFLICT,
        format!(
            "these nodes have no certificates of the new authorities yet: {}",
            missing.join(", ")
        ),
        "switch them on and wait a moment; with --force they have to join anew with a token",
    ))
}

/// Refuses while a member of etcd does not trust the new authority, or shows a leaf of the old.
async fn members_must_trust(place: &etcd::Place, present: &Secrets) -> Result<(), Refusal> {
    let missing = etcd::not_trusting(place, &present.etcd_ca.bundle()).await;
    let missing = missing.map_err(|failure| Refusal::internal(&failure))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::CONFLICT,
        format!("etcd does not trust the new authority yet on: {}", missing.join(", ")),
        "its members start again one after the other, while all answer: see that all servers are \
         on (`coracle datastore status`), and wait a moment",
    ))
}
