//! `coracle token`: what boards join with.

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp, Unit};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};

use super::admin::Admin;
use crate::config::{Common, Span};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::join::bootstrap_tokens::{
    self, BootstrapToken, DEFAULT_GROUP, NAMESPACE, TYPE, USAGES, secret_name,
};
use crate::join::protocol::Change;
use crate::join::token::{self, Credential, Token};

/// Commands on tokens.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a bootstrap token, which lets agents join until it expires, and print it
    Create {
        /// The token, as six and sixteen letters and digits [default: one that nobody can guess]
        token: Option<String>,
        /// How long it lives, such as 24h; 0 for ever
        #[arg(long, default_value = "24h")]
        ttl: Span,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// What it is good for; may be given several times
        #[arg(long, value_delimiter = ',', value_parser = USAGES, default_values = USAGES)]
        usages: Vec<String>,
        /// Groups of whoever shows it; may be given several times
        #[arg(long, value_delimiter = ',', default_value = DEFAULT_GROUP)]
        groups: Vec<String>,
    },
    /// List the bootstrap tokens
    #[command(visible_alias = "ls")]
    List,
    /// Remove bootstrap tokens
    #[command(visible_alias = "rm")]
    Delete {
        /// Tokens, or the parts before the dot
        #[arg(required = true)]
        tokens: Vec<String>,
    },
    /// Print the tokens that servers and agents join with
    Show,
    /// Replace the server token; servers follow by themselves
    Rotate {
        /// The new one [default: one that nobody can guess]
        #[arg(long, env = "CORACLE_NEW_TOKEN", hide_env_values = true)]
        new_token: Option<String>,
    },
}
base::hides!(TokenCommand);

/// Carries out a command on tokens.
pub async fn run(common: Common, command: TokenCommand) -> Outcome {
    let admin = Admin::open(&common).await?;
    match command {
        TokenCommand::Create { token, ttl, description, usages, groups } => {
            let life = SignedDuration::from_secs(ttl.seconds().into());
            let life = Some(life).filter(|life| !life.is_zero());
            let mut made = BootstrapToken::new(life, Timestamp::now())?;
            if let Some(token) = token {
                (made.id, made.secret) = token::bootstrap(&token).ok_or_else(|| {
                    Failure::new(format!("{token:?} is no bootstrap token"))
                        .hint("write six and sixteen of a-z and 0-9 with a dot between them")
                })?;
            }
            create(&admin, BootstrapToken { description, usages, groups, ..made }).await
        }
        TokenCommand::List => list(&admin).await,
        TokenCommand::Delete { tokens } => delete(&admin, &tokens).await,
        TokenCommand::Show => {
            let secrets = admin.secrets()?;
            let authority = &secrets.server_ca.cert;
            let show = |credential| Token::new(authority, credential);
            println!("server  {}", show(Credential::Server(secrets.server_token.clone())));
            println!("agent   {}", show(Credential::Node(secrets.agent_token.clone())));
            Ok(())
        }
        TokenCommand::Rotate { new_token } => {
            let token = new_token.map_or_else(token::random_secret, Ok)?;
            token::must_be_plain(&token)?;
            let changed = admin.change(&Change::ServerToken { token }).await?;
            println!("{}", changed.server_token);
            eprintln!(
                "servers that run or come back take it by themselves; where --token is in a \
                 configuration, put the new one there"
            );
            Ok(())
        }
    }
}

async fn create(admin: &Admin, token: BootstrapToken) -> Outcome {
    let api: Api<Secret> = Api::namespaced(admin.client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &token.to_secret())
        .await
        .doing(|| format!("making the bootstrap token {}", token.id))
        .hint(|| "an id is used once: `coracle token list` shows those there are".into())?;
    let credential = Credential::Bootstrap { id: token.id, secret: token.secret };
    println!("{}", Token::new(&admin.secrets()?.server_ca.cert, credential));
    Ok(())
}

async fn list(admin: &Admin) -> Outcome {
    let api: Api<Secret> = Api::namespaced(admin.client.clone(), NAMESPACE);
    let params = ListParams::default().fields(&format!("type={TYPE}"));
    let secrets = api.list(&params).await.doing(|| "listing the bootstrap tokens".into())?;
    let tokens: Vec<_> = secrets.iter().filter_map(BootstrapToken::of_secret).collect();
    println!("{}", table(&tokens, Timestamp::now()));
    Ok(())
}

/// The columns of `kubeadm token list`, without the secrets.
fn table(tokens: &[BootstrapToken], now: Timestamp) -> String {
    let head = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"];
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let rows = tokens.iter().map(|token| {
        let left = token.expires.map(|end| end.duration_since(now));
        [
            token.id.clone(),
            match left {
                None => "<forever>".to_owned(),
                Some(left) if left.is_positive() => short(left),
                Some(_) => "<expired>".to_owned(),
            },
            token.expires.map_or_else(|| "<never>".to_owned(), |end| format!("{end:.0}")),
            or_none(token.usages.join(",")),
            or_none(token.description.clone()),
            or_none(token.groups.join(",")),
        ]
    });
    super::columns(&head.map(str::to_owned), rows)
}

/// A span as people say it: its largest unit alone.
fn short(left: SignedDuration) -> String {
    let left = left.round(Unit::Second).unwrap_or(left);
    match left.as_secs() {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7199 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

async fn delete(admin: &Admin, tokens: &[String]) -> Outcome {
    let api: Api<Secret> = Api::namespaced(admin.client.clone(), NAMESPACE);
    for token in tokens {
        let plain = token.rsplit("::").next().unwrap_or(token);
        let id = plain.split('.').next().unwrap_or(plain);
        api.delete(&bootstrap_tokens::secret_name(id), &DeleteParams::default())
            .await
            .doing(|| format!("removing the bootstrap token {id} ({})", secret_name(id)))
            .hint(|| "`coracle token list` shows those there are".into())?;
        println!("bootstrap token {id} deleted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_without_their_secrets() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let token = BootstrapToken {
            id: "abcdef".into(),
            secret: "0123456789abcdef".into(),
            description: "garden".into(),
            expires: Some("2026-11-22T11:00:00Z".parse().expect("a time")),
            usages: vec!["signing".into()],
            groups: Vec::new(),
        };
        let over = BootstrapToken { expires: Some(now), ..token.clone() };
        assert_eq!(
            table(&[token, over], now),
            "TOKEN    TTL         EXPIRES                USAGES    DESCRIPTION   EXTRA GROUPS\n\
             abcdef   23h         2026-11-22T11:00:00Z   signing   garden        <none>\n\
             abcdef   <expired>   2026-11-21T12:00:00Z   signing   garden        <none>"
        );
    }
}
