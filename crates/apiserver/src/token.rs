//! Service-account tokens: made, checked, and described to others (OIDC discovery).
//!
//! The format is upstream's bound token: a JWT with the claim `kubernetes.io` naming the
//! account and the pod or secret that it lives and dies with.

pub(crate) mod lasting;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use ring::signature::{self, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Store;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};

use crate::access::Access;
use crate::authn::CREDENTIAL_ID;
use crate::config::ServiceAccountConfig;
use crate::objects;
use crate::user::User;
use lasting::Lasting;

/// Tokens whose signature was found good and is not computed again.
const VERIFIED_TOKENS_MAX: usize = 1024;
/// A token's length in bytes beyond which it is not looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// For this long after its deletion was asked for, a bound object still holds its tokens.
const DELETION_LEEWAY_SECONDS: i64 = 60;
/// DER of a P-256 SubjectPublicKeyInfo up to the 65 bytes of the point.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A name and the uid that it must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub name: String,
    pub uid: String,
}

/// The claim `kubernetes.io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Binding {
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
}

/// What a token says. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Binding,
    pub nbf: i64,
    pub sub: String,
}

/// What the two kinds of tokens say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Said {
    Bound(Box<Claims>),
    Lasting(Box<Lasting>),
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TokenError {
    #[error("invalid bearer token")]
    Malformed,
    #[error("invalid bearer token, no key of this server has signed it")]
    Signature,
    #[error("invalid bearer token, the issuer {0:?} is not this server's")]
    Issuer(String),
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    Early,
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    #[error("service account token has been invalidated")]
    Unbound,
    #[error("invalid bearer token, {0}")]
    Oidc(String),
    #[error("invalid bootstrap token: {0}")]
    Bootstrap(&'static str),
    #[error("invalid bearer token, {0}")]
    Webhook(String),
}

struct PublicKey {
    id: String,
    algorithm: &'static str,
    verification: &'static dyn signature::VerificationAlgorithm,
    /// The point of a P-256 key, the RSAPublicKey of an RSA key.
    bytes: Vec<u8>,
    jwk: Value,
}

/// The key that signs, and all those that tokens may be signed with, its own first.
struct Keys {
    signer: EcdsaKeyPair,
    public: Vec<PublicKey>,
}

impl Keys {
    fn read(signing_pem: &str, public_pem: &[String]) -> Result<Keys, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(signing_pem.as_bytes())
            .map_err(|error| format!("the signing key is no PKCS #8 PEM: {error:?}"))?;
        let signer = EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            der.secret_pkcs8_der(),
            &ring::rand::SystemRandom::new(),
        )
        .map_err(|error| format!("the signing key is no P-256 key: {error}"))?;
        let own = [&P256_SPKI_PREFIX, signer.public_key().as_ref()].concat();
        let mut public = vec![public_key(&own)?];
        for pem in public_pem {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
                .map_err(|error| format!("a public key is no SPKI PEM: {error:?}"))?;
            let key = public_key(&der)?;
            if public.iter().all(|known| known.id != key.id) {
                public.push(key);
            }
        }
        Ok(Keys { signer, public })
    }
}

/// Signs and checks tokens.
pub(crate) struct Tokens {
    store: Store,
    issuer: String,
    /// Issuers of older tokens that count as this server's own.
    earlier_issuers: Vec<String>,
    /// Where the keys are, if not below the issuer.
    jwks_uri: Option<String>,
    audiences: Vec<String>,
    keys: RwLock<Arc<Keys>>,
    verified: Mutex<HashMap<[u8; 32], Arc<Said>>>,
}

impl Tokens {
    /// Reads the keys. The error says which one could not be read.
    pub(crate) fn new(
        store: Store,
        config: &ServiceAccountConfig,
        access: &Access,
    ) -> Result<Tokens, String> {
        let keys = Keys::read(&config.signing_key_pem, &config.public_keys_pem)?;
        let audiences = if config.audiences.is_empty() {
            vec![config.issuer.clone()]
        } else {
            config.audiences.clone()
        };
        Ok(Tokens {
            store,
            issuer: config.issuer.clone(),
            earlier_issuers: access.earlier_issuers.clone(),
            jwks_uri: access.jwks_uri.clone(),
            audiences,
            keys: RwLock::new(Arc::new(keys)),
            verified: Mutex::default(),
        })
    }

    /// Signs with another key from now on, and forgets which tokens were good.
    pub(crate) fn set_keys(&self, signing_pem: &str, public_pem: &[String]) -> Result<(), String> {
        let keys = Arc::new(Keys::read(signing_pem, public_pem)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The audiences that mean this server.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Makes a token for an account; `expires` counts from now.
    pub(crate) fn issue(
        &self,
        binding: Binding,
        aud: Vec<String>,
        expires: i64,
        now: i64,
    ) -> String {
        let claims = Claims {
            aud,
            exp: now + expires,
            iat: now,
            iss: self.issuer.clone(),
            jti: base::names::uuid(),
            nbf: now,
            sub: format!(
                "system:serviceaccount:{}:{}",
                binding.namespace, binding.serviceaccount.name
            ),
            kubernetes: binding,
        };
        self.sign(&claims)
    }

    fn sign(&self, claims: &impl Serialize) -> String {
        let keys = self.keys();
        let head = json!({"alg": "ES256", "kid": keys.public[0].id});
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let text = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims));
        // Signing fails only when the kernel's random generator does; the token is then
        // refused like any other without a good signature.
        let signature = keys
            .signer
            .sign(&ring::rand::SystemRandom::new(), text.as_bytes())
            .map(|signature| BASE64.encode(signature))
            .unwrap_or_default();
        format!("{text}.{signature}")
    }

    /// The user behind a token, and which of the audiences it is meant for.
    pub(crate) fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), TokenError> {
        let said = self.verify(token)?;
        let claims = match said.as_ref() {
            Said::Bound(claims) => claims,
            Said::Lasting(lasting) => {
                let here = |name: &&String| self.audiences.contains(name);
                let meant: Vec<String> = audiences.iter().filter(here).cloned().collect();
                if meant.is_empty() {
                    let own = self.audiences.clone();
                    return Err(TokenError::Audience(own, audiences.to_vec()));
                }
                return lasting.user(&self.store, token).map(|user| (user, meant));
            }
        };
        let now = Timestamp::now().as_second();
        if now >= claims.exp {
            return Err(TokenError::Expired);
        }
        if now < claims.nbf {
            return Err(TokenError::Early);
        }
        let meant: Vec<String> =
            audiences.iter().filter(|name| claims.aud.contains(name)).cloned().collect();
        if meant.is_empty() {
            return Err(TokenError::Audience(claims.aud.clone(), audiences.to_vec()));
        }
        self.check_bound(&claims.kubernetes, now)?;
        Ok((user_of(claims), meant))
    }

    /// The claims of a token with a good signature of ours.
    fn verify(&self, token: &str) -> Result<Arc<Said>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let digest: [u8; 32] = digest.as_ref().try_into().map_err(|_| TokenError::Malformed)?;
        let cached = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = cached.get(&digest) {
            return Ok(Arc::clone(claims));
        }
        drop(cached);
        let claims = Arc::new(self.verify_signature(token)?);
        let mut cached = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= VERIFIED_TOKENS_MAX {
            cached.clear();
        }
        cached.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }

    fn verify_signature(&self, token: &str) -> Result<Said, TokenError> {
        #[derive(Deserialize)]
        struct Head {
            alg: String,
            #[serde(default)]
            kid: String,
        }
        let (text, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (head, claims) = text.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| BASE64.decode(part).map_err(|_| TokenError::Malformed);
        let head: Head =
            serde_json::from_slice(&decode(head)?).map_err(|_| TokenError::Malformed)?;
        let said: Said =
            serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)?;
        let (issuer, is_own) = match &said {
            Said::Bound(claims) => {
                let issuer = &claims.iss;
                (issuer, *issuer == self.issuer || self.earlier_issuers.contains(issuer))
            }
            Said::Lasting(lasting) => (&lasting.iss, lasting.iss == lasting::ISSUER),
        };
        if !is_own {
            return Err(TokenError::Issuer(issuer.clone()));
        }
        let signature = decode(signature)?;
        let good = self
            .keys()
            .public
            .iter()
            .filter(|key| key.algorithm == head.alg && (head.kid.is_empty() || head.kid == key.id))
            .any(|key| {
                UnparsedPublicKey::new(key.verification, &key.bytes)
                    .verify(text.as_bytes(), &signature)
                    .is_ok()
            });
        if good { Ok(said) } else { Err(TokenError::Signature) }
    }

    /// A token dies with its account and with the object it is bound to.
    fn check_bound(&self, binding: &Binding, now: i64) -> Result<(), TokenError> {
        let namespace = binding.namespace.as_str();
        let alive = |collection: &str, namespace: &str, reference: &Reference| {
            objects::identity(&self.store, collection, namespace, &reference.name).is_some_and(
                |found| {
                    found.uid == reference.uid
                        && found.deleted.is_none_or(|at| now < at + DELETION_LEEWAY_SECONDS)
                },
            )
        };
        let bound = [
            ("serviceaccounts", namespace, Some(&binding.serviceaccount)),
            ("pods", namespace, binding.pod.as_ref()),
            ("secrets", namespace, binding.secret.as_ref()),
            // With a pod the node is information only: the pod's own life decides.
            ("nodes", "", binding.node.as_ref().filter(|_| binding.pod.is_none())),
        ];
        let all = bound.into_iter().all(|(collection, namespace, reference)| {
            reference.is_none_or(|reference| alive(collection, namespace, reference))
        });
        if all { Ok(()) } else { Err(TokenError::Unbound) }
    }

    /// `/.well-known/openid-configuration`.
    pub(crate) fn openid_configuration(&self) -> Value {
        let mut algorithms: Vec<&str> =
            self.keys().public.iter().map(|key| key.algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.issuer,
            "jwks_uri": self.jwks_uri.clone().unwrap_or_else(|| {
                format!("{}/openid/v1/jwks", self.issuer.trim_end_matches('/'))
            }),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// `/openid/v1/jwks`.
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": self.keys().public.iter().map(|key| key.jwk.clone()).collect::<Vec<_>>()})
    }
}

fn user_of(claims: &Claims) -> User {
    let binding = &claims.kubernetes;
    let mut user = User::service_account(&binding.namespace, &binding.serviceaccount.name);
    user.uid = binding.serviceaccount.uid.clone();
    let mut fact = |key: &str, value: &str| {
        user.extra.insert(key.to_owned(), vec![value.to_owned()]);
    };
    fact(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    for (kind, reference) in [("pod", &binding.pod), ("node", &binding.node)] {
        if let Some(reference) = reference {
            fact(&format!("authentication.kubernetes.io/{kind}-name"), &reference.name);
            fact(&format!("authentication.kubernetes.io/{kind}-uid"), &reference.uid);
        }
    }
    user
}

fn public_key(spki: &[u8]) -> Result<PublicKey, String> {
    let (_, parsed) = SubjectPublicKeyInfo::from_der(spki)
        .map_err(|error| format!("a public key is no SPKI: {error}"))?;
    let bytes = parsed.subject_public_key.data.to_vec();
    let id = BASE64.encode(ring::digest::digest(&ring::digest::SHA256, spki));
    let common = |algorithm: &str, kind: &str| json!({"use": "sig", "kty": kind, "kid": id.clone(), "alg": algorithm});
    let parsed_key = parsed.parsed().map_err(|error| format!("reading a public key: {error}"))?;
    match parsed_key {
        x509_parser::public_key::PublicKey::EC(_) if spki.starts_with(&P256_SPKI_PREFIX) => {
            let mut jwk = common("ES256", "EC");
            // An uncompressed point: one byte of form, 32 bytes of x, 32 bytes of y.
            jwk["crv"] = "P-256".into();
            jwk["x"] = BASE64.encode(&bytes[1..33]).into();
            jwk["y"] = BASE64.encode(&bytes[33..]).into();
            let verification = &signature::ECDSA_P256_SHA256_FIXED;
            Ok(PublicKey { id, algorithm: "ES256", verification, bytes, jwk })
        }
        x509_parser::public_key::PublicKey::RSA(rsa) => {
            let trim = |number: &[u8]| {
                let zeros = number.iter().take_while(|byte| **byte == 0).count();
                BASE64.encode(&number[zeros..])
            };
            let mut jwk = common("RS256", "RSA");
            jwk["n"] = trim(rsa.modulus).into();
            jwk["e"] = trim(rsa.exponent).into();
            let verification = &signature::RSA_PKCS1_2048_8192_SHA256;
            Ok(PublicKey { id, algorithm: "RS256", verification, bytes, jwk })
        }
        _ => Err("a public key is neither P-256 nor RSA".to_owned()),
    }
}
