//! Path and query of a call.

use http::Uri;

/// A call taken apart; everything is percent-decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// Parts of the path.
    pub parts: Vec<String>,
    query: Vec<(String, String)>,
}

impl Call {
    /// From a request's target.
    pub fn parse(uri: &Uri) -> Result<Self, String> {
        let parts = uri.path().split('/').filter(|part| !part.is_empty());
        let parts = parts.map(|part| decode(part, false)).collect::<Result<_, _>>()?;
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok::<_, String>((decode(name, true)?, decode(value, true)?))
        });
        Ok(Call { parts, query: query.collect::<Result<_, _>>()? })
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.query.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// A switch: on when it is there and not `false` or `0`. Any of several names will do.
    pub fn on(&self, names: &[&str]) -> bool {
        names.iter().any(|name| {
            self.get(name).is_some_and(|v| !v.eq_ignore_ascii_case("false") && v != "0")
        })
    }
}

fn decode(text: &str, form: bool) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (byte, step) = match bytes[at] {
            b'+' if form => (b' ', 1),
            b'%' => {
                let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
                let byte = hex.and_then(|h| u8::from_str_radix(h, 16).ok());
                (byte.ok_or_else(|| format!("invalid URL escape in {text:?}"))?, 3)
            }
            byte => (byte, 1),
        };
        out.push(byte);
        at += step;
    }
    String::from_utf8(out).map_err(|_| format!("{text:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_apart() {
        let uri = "/exec/ns/pod/c?command=sh&command=-c&command=a%20b+c&input=1&tty=false"
            .parse()
            .unwrap();
        let call = Call::parse(&uri).unwrap();
        assert_eq!(call.parts, ["exec", "ns", "pod", "c"]);
        assert_eq!(call.all("command"), ["sh", "-c", "a b c"]);
        assert!(call.on(&["stdin", "input"]) && !call.on(&["tty"]) && !call.on(&["error"]));
        assert!(Call::parse(&"/a%zz".parse().unwrap()).is_err());
    }
}
