//! JSON Web Tokens of others (RFC 7519) and the keys that they are signed with (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A token's length in bytes beyond which it is not looked at.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Keys of one issuer that are not read any more.
const KEYS_MAX: usize = 64;
/// The signatures that can be checked, by their names in RFC 7518.
pub(super) const ALGORITHMS: [&str; 8] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"];

/// A token as it was sent; nothing in it is proved.
pub(super) struct Token<'t> {
    /// What is signed: head and claims as they were encoded.
    signed: &'t str,
    signature: Vec<u8>,
    pub algorithm: String,
    pub key: String,
    pub claims: Map<String, Value>,
}
base::hides!(Token<'t>, algorithm, key);

#[derive(Deserialize)]
struct Head {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl<'t> Token<'t> {
    /// Takes a token apart; `None` for what is none.
    pub(super) fn parse(text: &'t str) -> Option<Token<'t>> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let head: Head = serde_json::from_slice(&BASE64.decode(head).ok()?).ok()?;
        let claims = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        let signature = BASE64.decode(signature).ok()?;
        Some(Token { signed, signature, algorithm: head.alg, key: head.kid, claims })
    }

    /// A claim's text; empty where it has none.
    pub(super) fn text(&self, claim: &str) -> &str {
        self.claims.get(claim).and_then(Value::as_str).unwrap_or_default()
    }

    /// A claim that is a text or a list of texts.
    pub(super) fn texts(&self, claim: &str) -> Option<Vec<String>> {
        match self.claims.get(claim)? {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => {
                list.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        }
    }

    /// A time in seconds since 1970.
    pub(super) fn time(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        // Some issuers write fractions; a part of a second does not matter.
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }
}

/// A public key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Jwk {
    pub id: String,
    /// The only algorithm that it is for; any that fits where empty.
    algorithm: String,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Curve, and the point without compression.
    Ec(&'static str, Vec<u8>),
}

impl Jwk {
    /// The keys of a set that can be used to check signatures; others are left out.
    pub(super) fn set(document: &Value) -> Vec<Jwk> {
        let keys = document["keys"].as_array().into_iter().flatten();
        keys.filter_map(Jwk::read).take(KEYS_MAX).collect()
    }

    fn read(key: &Value) -> Option<Jwk> {
        let text = |member: &str| key[member].as_str().unwrap_or_default().to_owned();
        if !matches!(text("use").as_str(), "" | "sig") {
            return None;
        }
        let bytes = |member: &str| BASE64.decode(text(member).trim_end_matches('=')).ok();
        let material = match (text("kty").as_str(), text("crv").as_str()) {
            ("RSA", _) => {
                // ring refuses numbers that begin with zeros.
                let plain = |bytes: Vec<u8>| bytes.into_iter().skip_while(|b| *b == 0).collect();
                Material::Rsa { n: plain(bytes("n")?), e: plain(bytes("e")?) }
            }
            ("EC", "P-256") => Material::Ec("ES256", point(bytes("x")?, bytes("y")?, 32)?),
            ("EC", "P-384") => Material::Ec("ES384", point(bytes("x")?, bytes("y")?, 48)?),
            _ => return None,
        };
        Some(Jwk { id: text("kid"), algorithm: text("alg"), material })
    }

    /// Whether this key has signed a token.
    pub(super) fn has_signed(&self, token: &Token<'_>) -> bool {
        if !self.algorithm.is_empty() && self.algorithm != token.algorithm {
            return false;
        }
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        match &self.material {
            Material::Rsa { n, e } => {
                let Some(parameters) = rsa(&token.algorithm) else { return false };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Material::Ec(algorithm, point) => {
                let verification: &'static dyn signature::VerificationAlgorithm = match *algorithm {
                    "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
                    _ => &signature::ECDSA_P384_SHA384_FIXED,
                };
                let key = UnparsedPublicKey::new(verification, point);
                token.algorithm == *algorithm && key.verify(message, signature).is_ok()
            }
        }
    }
}

fn point(x: Vec<u8>, y: Vec<u8>, size: usize) -> Option<Vec<u8>> {
    (x.len() == size && y.len() == size).then(|| [vec![4], x, y].concat())
}

fn rsa(algorithm: &str) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The example of RFC 7515, A.3: a token that a P-256 key has signed.
    const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    #[test]
    fn the_standards_example_is_read_and_checked() {
        let token = Token::parse(SIGNED).unwrap();
        assert_eq!((token.text("iss"), token.time("exp")), ("joe", Some(1_300_819_380)));
        let key = json!({"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        let other = json!({"kty": "EC", "crv": "P-256", "alg": "ES384",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        let keys = Jwk::set(&json!({"keys": [key, other, {"kty": "oct", "k": "x"}]}));
        assert_eq!(keys.len(), 2);
        assert!(keys[0].has_signed(&token));
        assert!(!keys[1].has_signed(&token), "a key is for its own algorithm only");
        let changed = SIGNED.replace(".DtEh", ".DtEi");
        assert!(!keys[0].has_signed(&Token::parse(&changed).unwrap()));
    }

    #[test]
    fn what_is_no_token_is_none() {
        for text in ["", "a.b", "a.b.c", "e30.e30.e30", "..", "eyJhbGciOiJub25lIn0.W10."] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }
}
