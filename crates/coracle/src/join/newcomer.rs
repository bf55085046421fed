//! A further server on its way into the cluster: another one hands it the cluster's secrets.

use std::path::Path;

use jiff::Timestamp;

use super::door::{self, Closed, Door};
use super::protocol::{Handover, Hello, SERVER};
use super::{Bring, agent};
use crate::config::Membership;
use crate::failure::{Failure, Outcome, While};
use crate::{files, server};

/// Asks the server that the flags name for the cluster's secrets and the members of its etcd,
/// unless this server has the secrets already and does not join etcd. Waits for that server as
/// long as it takes.
pub async fn fetch(
    bring: &mut Bring,
    membership: &Membership,
    data_dir: &Path,
    name: &str,
    joins: bool,
) -> Outcome {
    let Some(server) = &membership.server else { return Ok(()) };
    if bring.known()?.is_some() && !joins {
        return Ok(());
    }
    let server = door::authority(server)?;
    let token = bring.token.as_ref().ok_or_else(|| {
        Failure::new("a server needs the cluster's token to join")
            .hint("give --token: a server keeps it in server/token")
    })?;
    let folder = data_dir.join("agent");
    files::make_folder(&folder, true).doing(|| format!("making {}", folder.display()))?;
    let password = agent::password(&folder)?;
    let ask = async || -> Result<Handover, Closed> {
        let hello = Hello {
            name: name.to_owned(),
            password: password.clone(),
            version: server::version(),
            time_ms: Timestamp::now().as_millisecond(),
            request: None,
        };
        Door::by_token(server.clone(), token).await?.ask(SERVER, &hello).await
    };
    let Handover { secrets, etcd } = door::patiently(ask).await?;
    bring.settings.must_be(&secrets.settings)?;
    (bring.handed, bring.etcd) = (Some(secrets), etcd);
    Ok(())
}
