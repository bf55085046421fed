//! How boards become one cluster: tokens, the secrets that all servers share, the desk at which
//! a server lets others in, and the way a joining board takes to it.

pub mod agent;
pub mod bootstrap_tokens;
mod certify;
mod changes;
mod checks;
mod desk;
pub mod door;
mod newcomer;
mod node_certificates;
mod passwords;
pub mod protocol;
mod sealed;
pub mod secrets;
mod servers;
mod shared;
pub mod token;
mod trust;

pub use desk::Desk;
pub use newcomer::fetch;
pub use passwords::keep as keep_passwords;
pub use secrets::{Equal, Secrets};
pub use shared::{Bring, COLLECTION, adopt, complete, follow};
pub use token::{Credential, Token};
pub use trust::{GENERATION, Trust};

use std::path::Path;

use passwords::Proof;

use crate::failure::{Outcome, While};
use crate::files;

/// Writes the tokens where people look for them: `token` for servers, `agent-token` for agents,
/// and the latter by k3s' name `node-token` too.
pub fn write_tokens(folder: &Path, secrets: &Secrets) -> Outcome {
    let authority = &secrets.server_ca.cert;
    let server = Token::new(authority, Credential::Server(secrets.server_token.clone()));
    let agent = Token::new(authority, Credential::Node(secrets.agent_token.clone()));
    for (file, token) in [("token", &server), ("agent-token", &agent), ("node-token", &agent)] {
        let path = folder.join(file);
        files::write_if_changed(&path, format!("{token}\n").as_bytes(), 0o600)
            .doing(|| format!("writing the token {}", path.display()))?;
    }
    Ok(())
}

/// Takes the name of this board's node, as every other board does when it joins.
pub async fn claim_name(client: &kube::Client, data_dir: &Path, name: &str) -> Outcome {
    let folder = data_dir.join("agent");
    files::make_folder(&folder, true).doing(|| format!("making {}", folder.display()))?;
    let password = agent::password(&folder)?;
    passwords::claim(client, name, &password, Proof::Itself).await.map_err(Into::into)
}
