//! How fast nodes that are not ready lose their pods: flags and defaults are upstream's.

use clap::Args;

/// Flags of the rate at which nodes lose their pods.
#[derive(Debug, Clone, Args)]
pub struct EvictionOptions {
    /// Nodes of a zone a second that lose their pods when several fail, while the zone is well
    #[arg(
        long,
        env = "CORACLE_NODE_EVICTION_RATE",
        default_value_t = 0.1,
        value_parser = rate
    )]
    pub node_eviction_rate: f64,
    /// The same for a large zone most of which has failed; in a smaller one it is 0
    #[arg(
        long,
        env = "CORACLE_SECONDARY_NODE_EVICTION_RATE",
        default_value_t = 0.01,
        value_parser = rate
    )]
    pub secondary_node_eviction_rate: f64,
    /// Share of a zone's nodes, three at the least, that must fail for the zone to count as such
    #[arg(
        long,
        env = "CORACLE_UNHEALTHY_ZONE_THRESHOLD",
        default_value_t = 0.55,
        value_parser = share
    )]
    pub unhealthy_zone_threshold: f64,
    /// A zone of more nodes than these is large
    #[arg(long, env = "CORACLE_LARGE_CLUSTER_SIZE_THRESHOLD", default_value_t = 50)]
    pub large_cluster_size_threshold: u32,
}

impl EvictionOptions {
    /// As the controllers want them.
    pub fn rates(&self) -> controllers::EvictionRates {
        controllers::EvictionRates {
            normal: self.node_eviction_rate,
            secondary: self.secondary_node_eviction_rate,
            unhealthy_share: self.unhealthy_zone_threshold,
            large_zone_nodes: self.large_cluster_size_threshold,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    within(text, f64::MAX, "nodes a second, such as 0.1")
}

fn share(text: &str) -> Result<f64, String> {
    within(text, 1.0, "a share from 0 to 1, such as 0.55")
}

fn within(text: &str, max: f64, what: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=max).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no number of what is wanted: {what}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: EvictionOptions,
    }

    #[test]
    fn without_flags_it_is_as_upstream_and_nonsense_is_refused() {
        let line = |flags: &str| {
            Line::try_parse_from(["server"].into_iter().chain(flags.split_whitespace()))
        };
        let rates = line("").expect("no flags").options.rates();
        assert_eq!(rates, controllers::EvictionRates::default());
        for nonsense in
            ["--node-eviction-rate=-1", "--node-eviction-rate=NaN", "--unhealthy-zone-threshold=55"]
        {
            assert!(line(nonsense).is_err(), "{nonsense}");
        }
        assert_eq!(line("--node-eviction-rate=0").expect("none").options.node_eviction_rate, 0.0);
    }
}
