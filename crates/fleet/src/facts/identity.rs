use std::collections::BTreeSet;

/// The cluster that a board is in, by the authorities that it trusts. One that replaces its authority
/// has the old one in the bundle for a while, so boards are of one cluster when they share any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    authorities: BTreeSet<String>,
}

impl Identity {
    /// From a server's authority (PEM) or what an agent remembers (JSON).
    pub fn of(server: &str, agent: &str) -> Option<Self> {
        let remembered: Option<serde_json::Value> = serde_json::from_str(agent).ok();
        let bundle = remembered.as_ref().and_then(|value| value["trust"]["serverCa"].as_str());
        let bundle = if server.is_empty() { bundle? } else { server };
        let mut authorities = BTreeSet::new();
        let mut rest = bundle;
        while let Some((_, after)) = rest.split_once("-----BEGIN CERTIFICATE-----") {
            let (body, next) = after.split_once("-----END CERTIFICATE-----")?;
            authorities.insert(body.split_whitespace().collect());
            rest = next;
        }
        (!authorities.is_empty()).then_some(Self { authorities })
    }

    /// Whether two boards are of one cluster.
    pub fn is_of(&self, other: &Identity) -> bool {
        !self.authorities.is_disjoint(&other.authorities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(body: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn boards_that_share_an_authority_are_of_one_cluster() {
        let server = Identity::of(&pem("new"), "").expect("a server");
        let bundle = pem("new") + &pem("old");
        let json = serde_json::json!({ "trust": { "serverCa": bundle } }).to_string();
        let agent = Identity::of("", &json).expect("an agent");
        let old = Identity::of(&pem("old"), "").expect("a server");
        assert!(server.is_of(&agent) && agent.is_of(&old) && !server.is_of(&old));
        assert_eq!(Identity::of("", ""), None);
    }
}
