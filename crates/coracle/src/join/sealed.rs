//! The cluster's secrets in the form that the datastore holds: sealed with a key made from the
//! server token.
//!
//! A person may choose a short token, so the key is made by scrypt. When the token is replaced,
//! the new one is left behind sealed with the old one's key: servers that were running or off
//! meanwhile follow by themselves. Whoever has the old token and the datastore could have read
//! everything before, so nothing is given away.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use super::Secrets;
use super::token::random_bytes;
use crate::failure::{Failure, Outcome, While};

const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// Cost of scrypt: 2^14 rounds of 8 blocks take 16 MiB and some 50 ms, which a board can spare
/// when a key changes.
const LOG_N: u8 = 14;
const BLOCKS: u32 = 8;
const PARALLEL: u32 = 1;

/// One sealed text.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Piece {
    salt: String,
    nonce: String,
    text: String,
}

/// The sealed secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sealed {
    secrets: Piece,
    /// The token that took the place of an older one, sealed with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successor: Option<Piece>,
}

impl Sealed {
    /// Seals secrets with their own server token. `before` is the token that this one takes the
    /// place of.
    pub fn new(secrets: &Secrets, before: Option<&str>) -> Outcome<Self> {
        let text = serde_json::to_vec(secrets).doing(|| "sealing the cluster's secrets".into())?;
        let successor = before
            .filter(|before| *before != secrets.server_token)
            .map(|before| Piece::seal(before, secrets.server_token.as_bytes()))
            .transpose()?;
        Ok(Sealed { secrets: Piece::seal(&secrets.server_token, &text)?, successor })
    }

    /// Opens the secrets with one of these tokens, or with the one that took its place.
    pub fn open(&self, tokens: &[String]) -> Outcome<Option<Secrets>> {
        for token in tokens {
            let successor = || {
                let token = self.successor.as_ref()?.open(token)?;
                self.secrets.open(std::str::from_utf8(&token).ok()?)
            };
            if let Some(text) = self.secrets.open(token).or_else(successor) {
                let secrets = serde_json::from_slice(&text)
                    .doing(|| "reading the cluster's secrets".into())?;
                return Ok(Some(secrets));
            }
        }
        Ok(None)
    }
}

impl Piece {
    fn seal(token: &str, text: &[u8]) -> Outcome<Self> {
        let (salt, nonce) = (random_bytes::<SALT_BYTES>()?, random_bytes::<NONCE_LEN>()?);
        let mut text = text.to_vec();
        key(token, &salt)
            .and_then(|key| {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(nonce, Aad::empty(), &mut text).ok()
            })
            .ok_or_else(|| Failure::new("the cluster's secrets could not be sealed"))?;
        Ok(Piece {
            salt: BASE64.encode(salt),
            nonce: BASE64.encode(nonce),
            text: BASE64.encode(text),
        })
    }

    fn open(&self, token: &str) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = BASE64.decode(&self.nonce).ok()?.try_into().ok()?;
        let mut text = BASE64.decode(&self.text).ok()?;
        let key = key(token, &BASE64.decode(&self.salt).ok()?)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.open_in_place(nonce, Aad::empty(), &mut text).ok()?;
        Some(opened.to_vec())
    }
}

fn key(token: &str, salt: &[u8]) -> Option<LessSafeKey> {
    let mut key = [0; KEY_BYTES];
    let params = scrypt::Params::new(LOG_N, BLOCKS, PARALLEL).ok()?;
    scrypt::scrypt(token.as_bytes(), salt, &params, &mut key).ok()?;
    UnboundKey::new(&CHACHA20_POLY1305, &key).ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::secrets::Equal;

    fn secrets(token: &str) -> Secrets {
        let settings = Equal {
            cluster_cidr: "10.42.0.0/16".into(),
            service_cidr: "10.43.0.0/16".into(),
            cluster_dns: "10.43.0.10".into(),
            cluster_domain: "cluster.local".into(),
            vxlan_vni: Some(1),
            vxlan_port: None,
        };
        Secrets::new(settings, Some(token.into()), None).expect("new secrets")
    }

    fn open(sealed: &Sealed, token: &str) -> Option<Secrets> {
        sealed.open(&[token.to_owned()]).expect("readable")
    }

    #[test]
    fn the_right_token_opens_and_no_other() {
        let secrets = secrets("right");
        let sealed = Sealed::new(&secrets, None).expect("sealed");
        assert!(open(&sealed, "right") == Some(secrets));
        assert!(open(&sealed, "wrong").is_none());
        let shown = serde_json::to_string(&sealed).expect("JSON");
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    }

    #[test]
    fn who_knows_the_token_before_finds_the_one_after() {
        let mut secrets = secrets("first");
        secrets.server_token = "second".into();
        let sealed = Sealed::new(&secrets, Some("first")).expect("sealed");
        for (token, opens) in [("first", true), ("second", true), ("third", false)] {
            assert_eq!(open(&sealed, token).is_some(), opens, "{token}");
        }
    }
}
