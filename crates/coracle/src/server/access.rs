//! Who may come in beside certificates and service accounts, and what is written down about it:
//! flags and defaults are upstream's, but for the audit log's, which must fit on a card.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::{
    Access, AdmissionPlugins, Anonymous, AuditOptions, AuthenticationConfiguration,
    AuthorizationWebhookOptions, Authorizers, ClaimRule, EventServerOptions, FrontProxy, Issuer,
    JwtAuthenticator, LogOptions, Mapping, Mappings, Policy, RemoteConfig, StaticTokens,
    TokenWebhookOptions,
};
use clap::Args;

use crate::config::Span;
use crate::failure::{Failure, Hint, Outcome, While};

/// Flags of authentication and of the audit log.
#[derive(Debug, Clone, Args)]
pub struct AccessOptions {
    /// Audience of this API in tokens, beside its issuer; may be given several times
    #[arg(long, env = "CORACLE_API_AUDIENCES", value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Issuer of service-account tokens, an https URL; further ones are accepted still, such as
    /// one that was used before [default: `https://kubernetes.default.svc` and the cluster's domain]
    #[arg(long, env = "CORACLE_SERVICE_ACCOUNT_ISSUER", value_delimiter = ',')]
    pub service_account_issuer: Vec<String>,
    /// Where relying parties find the keys of service-account tokens [default: below the issuer]
    #[arg(long, env = "CORACLE_SERVICE_ACCOUNT_JWKS_URI")]
    pub service_account_jwks_uri: Option<String>,
    /// File of tokens: a line each of token, user, uid and, in quotes, groups
    #[arg(long, env = "CORACLE_TOKEN_AUTH_FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// File AuthenticationConfiguration (apiserver.config.k8s.io): issuers of JSON Web Tokens
    #[arg(long, env = "CORACLE_AUTHENTICATION_CONFIG", conflicts_with = "oidc_issuer_url")]
    pub authentication_config: Option<PathBuf>,
    /// File AuthorizationConfiguration (apiserver.config.k8s.io): the chain of authorizers
    /// [default: Node, then RBAC]
    #[arg(
        long,
        env = "CORACLE_AUTHORIZATION_CONFIG",
        conflicts_with = "authorization_webhook_config_file"
    )]
    pub authorization_config: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reviews: ReviewFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub oidc: OidcOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub audit: AuditFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub admission: AdmissionFlags,
}

/// Flags of the servers that are asked about tokens and permissions.
#[derive(Debug, Clone, Args)]
pub struct ReviewFlags {
    /// File in the form of a kubeconfig: the server that is asked about tokens (TokenReview)
    #[arg(long, env = "CORACLE_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of TokenReview that it is sent
    #[arg(long, env = "CORACLE_AUTHENTICATION_TOKEN_WEBHOOK_VERSION", default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authentication_token_webhook_version: String,
    /// How long its answers count
    #[arg(long, env = "CORACLE_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL", default_value = "2m")]
    pub authentication_token_webhook_cache_ttl: Span,
    /// File in the form of a kubeconfig: the server that is asked about permissions that roles do
    /// not give (SubjectAccessReview)
    #[arg(long, env = "CORACLE_AUTHORIZATION_WEBHOOK_CONFIG_FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of SubjectAccessReview that it is sent
    #[arg(long, env = "CORACLE_AUTHORIZATION_WEBHOOK_VERSION", default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authorization_webhook_version: String,
    /// How long a permission of its counts
    #[arg(long, env = "CORACLE_AUTHORIZATION_WEBHOOK_CACHE_AUTHORIZED_TTL", default_value = "5m")]
    pub authorization_webhook_cache_authorized_ttl: Span,
    /// How long a refusal of its counts
    #[arg(
        long,
        env = "CORACLE_AUTHORIZATION_WEBHOOK_CACHE_UNAUTHORIZED_TTL",
        default_value = "30s"
    )]
    pub authorization_webhook_cache_unauthorized_ttl: Span,
}

impl ReviewFlags {
    fn tokens(&self) -> Outcome<Option<TokenWebhookOptions>> {
        let flag = "--authentication-token-webhook-config-file";
        let path = self.authentication_token_webhook_config_file.as_deref();
        let remote = path.map(|path| remote(path, flag)).transpose()?;
        Ok(remote.map(|remote| TokenWebhookOptions {
            remote,
            version: self.authentication_token_webhook_version.clone(),
            ttl: self.authentication_token_webhook_cache_ttl.duration(),
        }))
    }

    fn permissions(&self) -> Outcome<Option<AuthorizationWebhookOptions>> {
        let flag = "--authorization-webhook-config-file";
        let path = self.authorization_webhook_config_file.as_deref();
        let remote = path.map(|path| remote(path, flag)).transpose()?;
        Ok(remote.map(|remote| {
            AuthorizationWebhookOptions::new(
                remote,
                &self.authorization_webhook_version,
                self.authorization_webhook_cache_authorized_ttl.duration(),
                self.authorization_webhook_cache_unauthorized_ttl.duration(),
            )
        }))
    }
}

/// The server that a file in the form of a kubeconfig names; other files stand beside it.
fn remote(path: &Path, flag: &str) -> Outcome<RemoteConfig> {
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    let beside = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| format!("reading {}: {error}", path.display()))
    };
    RemoteConfig::parse(&read(path, flag)?, beside).map_err(|why| {
        Failure::new(format!("reading {}: {why}", path.display()))
            .hint(format!("mend the file that {flag} names"))
    })
}

/// Flags of admission.
#[derive(Debug, Clone, Args)]
pub struct AdmissionFlags {
    /// File AdmissionConfiguration (apiserver.config.k8s.io): how admission plugins are configured
    #[arg(long, env = "CORACLE_ADMISSION_CONTROL_CONFIG_FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Admission plugins to have beside those that are on by default, such as AlwaysPullImages
    #[arg(long, env = "CORACLE_ENABLE_ADMISSION_PLUGINS", value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to do without
    #[arg(long, env = "CORACLE_DISABLE_ADMISSION_PLUGINS", value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
}

/// Flags of the one issuer that needs no file.
#[derive(Debug, Clone, Args)]
pub struct OidcOptions {
    /// Issuer of OpenID Connect tokens that are believed, an https URL
    #[arg(long, env = "CORACLE_OIDC_ISSUER_URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,
    /// Audience that such a token must have
    #[arg(long, env = "CORACLE_OIDC_CLIENT_ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// File with the authority of the issuer's certificate [default: the machine's]
    #[arg(long, env = "CORACLE_OIDC_CA_FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user's name
    #[arg(long, env = "CORACLE_OIDC_USERNAME_CLAIM", default_value = "sub")]
    pub oidc_username_claim: String,
    /// Put before user names, - for nothing [default: the issuer and #, unless the claim is email]
    #[arg(
        long,
        env = "CORACLE_OIDC_USERNAME_PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub oidc_username_prefix: String,
    /// Claim that lists the user's groups
    #[arg(long, env = "CORACLE_OIDC_GROUPS_CLAIM", default_value = "", hide_default_value = true)]
    pub oidc_groups_claim: String,
    /// Put before groups
    #[arg(long, env = "CORACLE_OIDC_GROUPS_PREFIX", default_value = "", hide_default_value = true)]
    pub oidc_groups_prefix: String,
    /// Signatures that are accepted; may be given several times
    #[arg(long, env = "CORACLE_OIDC_SIGNING_ALGS", value_delimiter = ',', default_value = "RS256")]
    pub oidc_signing_algs: Vec<String>,
    /// Claim that a token must have, as key=value; may be given several times
    #[arg(long, env = "CORACLE_OIDC_REQUIRED_CLAIM", value_delimiter = ',', value_parser = claim)]
    pub oidc_required_claim: Vec<(String, String)>,
}

/// Flags of the audit log.
#[derive(Debug, Clone, Args)]
pub struct AuditFlags {
    /// File Policy (audit.k8s.io): which requests are written to the audit log
    #[arg(long, env = "CORACLE_AUDIT_POLICY_FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// The audit log's file, - for the standard output
    #[arg(long, env = "CORACLE_AUDIT_LOG_PATH", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// File in the form of a kubeconfig: the server that audit events are sent to
    #[arg(long, env = "CORACLE_AUDIT_WEBHOOK_CONFIG_FILE", requires = "audit_policy_file")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Whether events are lost when it does not take them fast enough (batch), or requests wait
    /// (blocking)
    #[arg(long, env = "CORACLE_AUDIT_WEBHOOK_MODE", default_value = "batch", value_parser = ["batch", "blocking"])]
    pub audit_webhook_mode: String,
    /// How long events are gathered before they are sent to it
    #[arg(long, env = "CORACLE_AUDIT_WEBHOOK_BATCH_MAX_WAIT", default_value = "30s")]
    pub audit_webhook_batch_max_wait: Span,
    /// Days for which files of the audit log that are full are kept, 0 for ever
    #[arg(long, env = "CORACLE_AUDIT_LOG_MAXAGE", default_value_t = 30)]
    pub audit_log_maxage: u64,
    /// How many files of the audit log that are full are kept, 0 for all
    #[arg(long, env = "CORACLE_AUDIT_LOG_MAXBACKUP", default_value_t = 5)]
    pub audit_log_maxbackup: usize,
    /// Megabytes after which a new file of the audit log is begun
    #[arg(
        long,
        env = "CORACLE_AUDIT_LOG_MAXSIZE",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..1 << 20)
    )]
    pub audit_log_maxsize: u64,
    /// Whether events are lost when too many come at once (batch), or requests wait (blocking)
    #[arg(long, env = "CORACLE_AUDIT_LOG_MODE", default_value = "batch", value_parser = ["batch", "blocking"])]
    pub audit_log_mode: String,
    /// How long events are gathered before they are written
    #[arg(long, env = "CORACLE_AUDIT_LOG_BATCH_MAX_WAIT", default_value = "5s")]
    pub audit_log_batch_max_wait: Span,
}

fn claim(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no claim, which is written as key=value")),
    }
}

impl AccessOptions {
    /// The issuer that new service-account tokens name.
    pub fn issuer(&self, cluster_domain: &str) -> String {
        let named = self.service_account_issuer.first();
        named.cloned().unwrap_or_else(|| format!("https://kubernetes.default.svc.{cluster_domain}"))
    }

    /// Reads the files that the flags name.
    pub fn access(&self, front_proxy: Option<FrontProxy>) -> Outcome<Access> {
        let mut access = Access {
            front_proxy,
            audit: self.audit.options()?,
            earlier_issuers: self.service_account_issuer.iter().skip(1).cloned().collect(),
            jwks_uri: self.service_account_jwks_uri.clone(),
            token_webhook: self.reviews.tokens()?,
            authorizers: self.authorizers()?,
            ..Access::default()
        };
        if let Some(path) = &self.token_auth_file {
            access.static_tokens = parsed(path, "--token-auth-file", StaticTokens::parse)?;
        }
        (access.jwt, access.anonymous) = self.issuers()?;
        Ok(access)
    }

    /// Issuers of tokens, and which paths are open to anybody.
    pub fn issuers(&self) -> Outcome<(Vec<JwtAuthenticator>, Option<Anonymous>)> {
        let (mut issuers, mut anonymous) = (Vec::new(), None);
        if let Some(path) = &self.authentication_config {
            let parse = AuthenticationConfiguration::parse;
            let config = parsed(path, "--authentication-config", parse)?;
            (issuers, anonymous) = (config.jwt, config.anonymous);
        }
        issuers.extend(self.oidc.issuer()?);
        Ok((issuers, anonymous))
    }

    /// The chain of authorizers.
    pub fn authorizers(&self) -> Outcome<Authorizers> {
        let Some(path) = &self.authorization_config else {
            let behind = self.reviews.permissions()?;
            let chain = Authorizers::default();
            return Ok(match behind {
                Some(webhook) => chain.with_webhook(webhook),
                None => chain,
            });
        };
        let flag = "--authorization-config";
        let named = |name: &str| {
            remote(Path::new(name), flag).map_err(|failure| base::chain(&failure).to_string())
        };
        Authorizers::parse(&read(path, flag)?, named).map_err(|why| {
            Failure::new(format!("reading {}: {why}", path.display()))
                .hint(format!("mend the file that {flag} names"))
        })
    }
}

impl AccessOptions {
    /// Which admission plugins there are, and what their files say.
    pub fn admission(&self) -> Outcome<AdmissionPlugins> {
        let flags = &self.admission;
        let mut plugins = AdmissionPlugins::default();
        let (on, off) = (&flags.enable_admission_plugins, &flags.disable_admission_plugins);
        plugins.switch(on, off).map_err(|why| {
            Failure::new(why).hint(
                "name plugins as upstream does with --enable-admission-plugins and --disable-admission-plugins",
            )
        })?;
        if let Some(path) = &flags.admission_control_config_file {
            let flag = "--admission-control-config-file";
            // Files that it names stand beside it.
            let folder = path.parent().unwrap_or(Path::new("."));
            let beside = |name: &str| {
                let path = folder.join(name);
                std::fs::read_to_string(&path)
                    .map_err(|error| format!("reading {}: {error}", path.display()))
            };
            plugins.configure(&read(path, flag)?, beside).map_err(|why| {
                Failure::new(format!("reading {}: {why}", path.display()))
                    .hint(format!("mend the file that {flag} names"))
            })?;
        }
        plugins.check().map_err(|why| {
            Failure::new(why).hint("configure it in the file of --admission-control-config-file")
        })?;
        Ok(plugins)
    }
}

impl OidcOptions {
    fn issuer(&self) -> Outcome<Option<JwtAuthenticator>> {
        let (Some(url), Some(audience)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            return Ok(None);
        };
        let ca = self.oidc_ca_file.as_deref().map(|path| read(path, "--oidc-ca-file"));
        let prefix = match self.oidc_username_prefix.as_str() {
            "-" => String::new(),
            "" if self.oidc_username_claim == "email" => String::new(),
            "" => format!("{url}#"),
            prefix => prefix.to_owned(),
        };
        let rules = self.oidc_required_claim.iter().map(|(key, value)| ClaimRule::new(key, value));
        Ok(Some(JwtAuthenticator {
            issuer: Issuer {
                url: url.clone(),
                audiences: vec![audience.clone()],
                certificate_authority: ca.transpose()?.unwrap_or_default(),
                ..Issuer::default()
            },
            claim_validation_rules: rules.collect(),
            claim_mappings: Mappings::new(
                Mapping::claim(&self.oidc_username_claim, &prefix),
                Mapping::claim(&self.oidc_groups_claim, &self.oidc_groups_prefix),
            ),
            algorithms: self.oidc_signing_algs.clone(),
            ..JwtAuthenticator::default()
        }))
    }
}

impl AuditFlags {
    fn options(&self) -> Outcome<Option<AuditOptions>> {
        let Some(policy) = &self.audit_policy_file else { return Ok(None) };
        let log = self.audit_log_path.as_ref().map(|path| LogOptions {
            path: path.clone(),
            max_megabytes: self.audit_log_maxsize,
            max_age_days: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            blocking: self.audit_log_mode == "blocking",
            gather: self.audit_log_batch_max_wait.duration(),
        });
        let flag = "--audit-webhook-config-file";
        let named = self.audit_webhook_config_file.as_deref();
        let server = named.map(|path| remote(path, flag)).transpose()?;
        let server = server.map(|remote| EventServerOptions {
            remote,
            blocking: self.audit_webhook_mode == "blocking",
            gather: self.audit_webhook_batch_max_wait.duration(),
        });
        if log.is_none() && server.is_none() {
            return Err(Failure::new("an audit policy without a log").hint(
                "name a file with --audit-log-path or a server with --audit-webhook-config-file",
            ));
        }
        let policy = Arc::new(parsed(policy, "--audit-policy-file", Policy::parse)?);
        Ok(Some(AuditOptions { policy, log, server }))
    }
}

fn read(path: &Path, flag: &str) -> Outcome<String> {
    std::fs::read_to_string(path)
        .doing(|| format!("reading {}", path.display()))
        .hint(|| format!("name a file that can be read with {flag}"))
}

fn parsed<T>(path: &Path, flag: &str, parse: fn(&str) -> Result<T, String>) -> Outcome<T> {
    parse(&read(path, flag)?).map_err(|why| {
        Failure::new(format!("reading {}: {why}", path.display()))
            .hint(format!("mend the file that {flag} names"))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        access: AccessOptions,
    }

    fn access(args: &[&str]) -> Outcome<Access> {
        let line = Line::try_parse_from(std::iter::once("x").chain(args.iter().copied()));
        line.expect("the flags are known").access.access(None)
    }

    #[test]
    fn everything_is_off_by_default() {
        let access = access(&[]).expect("nothing to read");
        assert!(access.jwt.is_empty() && access.audit.is_none() && access.anonymous.is_none());
    }

    #[test]
    fn an_issuer_is_made_of_flags() {
        let flags =
            ["--oidc-issuer-url=https://i.org", "--oidc-client-id=c", "--oidc-required-claim=hd=w"];
        let jwt = access(&flags).expect("an issuer").jwt;
        assert_eq!(jwt[0].claim_mappings.username, Mapping::claim("sub", "https://i.org#"));
        assert_eq!((jwt[0].claim_validation_rules[0].claim.as_str(), jwt.len()), ("hd", 1));
        assert!(Line::try_parse_from(["x", "--oidc-issuer-url=https://i.org"]).is_err());
    }

    #[test]
    fn admission_plugins_are_switched_and_configured() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admission.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{name: PodSecurity, path: missing.yaml}]\n";
        std::fs::write(&path, text).expect("written");
        let admission = |args: &[&str]| {
            let line = Line::try_parse_from(std::iter::once("x").chain(args.iter().copied()));
            line.expect("the flags are known").access.admission()
        };
        admission(&["--enable-admission-plugins=AlwaysPullImages,PodNodeSelector"]).expect("known");
        let wrong = admission(&["--disable-admission-plugins=Odd"]).unwrap_err();
        assert!(base::chain(&wrong).to_string().contains("\"Odd\" is unknown"));
        let file = format!("--admission-control-config-file={}", path.display());
        let wrong = base::chain(&admission(&[&file]).unwrap_err()).to_string();
        assert!(wrong.contains("missing.yaml"), "{wrong}");
    }

    #[test]
    fn a_file_that_is_wrong_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.csv");
        std::fs::write(&path, "a,b").expect("written");
        let failure = access(&[&format!("--token-auth-file={}", path.display())]).unwrap_err();
        assert!(base::chain(&failure).to_string().contains("at least 3 columns"));
    }
}
