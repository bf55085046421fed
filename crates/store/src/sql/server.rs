//! Where a SQL server is, and how to be let in.

use crate::TlsFiles;

/// The database that is used, and made, when none is named.
pub const DEFAULT_DATABASE: &str = "coracle";

/// How much of TLS is asked for, in libpq's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// None.
    Off,
    /// Where the server offers it; its certificate is not looked at.
    Prefer,
    /// Always; the certificate is checked where a CA file is given.
    Require,
    /// Always, and the certificate must be signed by the CA and name the host.
    Verify,
}

/// A SQL server and the database in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// What it is, for messages.
    pub engine: &'static str,
    /// Host and port; a host that begins with a slash is the folder or file of a socket.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The password, if one is needed.
    pub password: Option<String>,
    /// The database.
    pub database: String,
    /// How much of TLS.
    pub encryption: Encryption,
    /// Files for TLS.
    pub files: TlsFiles,
}

impl Server {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=...`.
    pub(crate) fn parse_postgres(endpoint: &str, files: TlsFiles) -> Result<Self, String> {
        let (_, rest) = endpoint.split_once("://").unwrap_or_default();
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains(',') {
            return Err("names several hosts; name one, or an address that moves".into());
        }
        let mut server = Self::of("PostgreSQL", login, "postgres", files)?;
        server.set_address(authority, 5432)?;
        server.set_database(database)?;
        let verified = server.files.ca.is_some();
        server.encryption = if verified { Encryption::Verify } else { Encryption::Prefer };
        for (name, value) in pairs(options)? {
            match (&*name, &*value) {
                ("sslmode", mode) => server.encryption = sslmode(mode)?,
                ("host", host) => server.host = host.into(),
                ("port", port) => server.port = number(port)?,
                ("user", user) => server.user = user.into(),
                ("password", password) => server.password = Some(password.into()),
                ("dbname", database) => server.set_database(database)?,
                ("sslrootcert", path) => server.files.ca = Some(path.into()),
                ("sslcert", path) => server.files.cert = Some(path.into()),
                ("sslkey", path) => server.files.key = Some(path.into()),
                ("application_name" | "connect_timeout", _) => {}
                (name, _) => return Err(format!("has the option {name:?}, which is not known")),
            }
        }
        server.must_be_able_to_verify()
    }

    /// Reads `USER:PASSWORD@tcp(HOST:PORT)/DATABASE?tls=...`, the form of Go's driver, and
    /// the plainer `USER:PASSWORD@HOST:PORT/DATABASE`.
    pub(crate) fn parse_mysql(rest: &str, files: TlsFiles) -> Result<Self, String> {
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let mut server = Self::of("MySQL", login, "root", files)?;
        let (address, database) = match rest.split_once('(') {
            Some((network, rest)) => {
                let (address, rest) =
                    rest.split_once(')').ok_or("lacks a closing parenthesis after the address")?;
                match network {
                    "tcp" | "tcp6" => server.set_address(address, 3306)?,
                    "unix" if address.starts_with('/') => server.host = address.into(),
                    other => return Err(format!("names the network {other:?}; known: tcp, unix")),
                }
                ("", rest.strip_prefix('/').unwrap_or(rest))
            }
            None => rest.split_once('/').unwrap_or((rest, "")),
        };
        if !address.is_empty() {
            server.set_address(address, 3306)?;
        }
        server.set_database(database)?;
        let verified = server.files.ca.is_some();
        server.encryption = if verified { Encryption::Verify } else { Encryption::Off };
        for (name, value) in pairs(options)? {
            match &*name {
                "tls" => server.encryption = go_tls(&value)?,
                // Go's driver needs these; they do not change what is stored.
                "parseTime" | "loc" | "charset" | "collation" | "timeout" | "readTimeout"
                | "writeTimeout" | "multiStatements" => {}
                name => return Err(format!("has the option {name:?}, which is not known")),
            }
        }
        server.must_be_able_to_verify()
    }

    fn of(
        engine: &'static str,
        login: &str,
        default_user: &str,
        files: TlsFiles,
    ) -> Result<Self, String> {
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(decoded(password)?)),
            None => (login, None),
        };
        let user = if user.is_empty() { default_user.to_owned() } else { decoded(user)? };
        Ok(Self {
            engine,
            host: "localhost".into(),
            port: 0,
            user,
            password,
            database: DEFAULT_DATABASE.into(),
            encryption: Encryption::Off,
            files,
        })
    }

    fn set_address(&mut self, authority: &str, default_port: u16) -> Result<(), String> {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(number(port)?)),
            _ => (authority, None),
        };
        self.port = port.unwrap_or(default_port);
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if !host.is_empty() {
            self.host = decoded(host)?;
        }
        Ok(())
    }

    fn set_database(&mut self, database: &str) -> Result<(), String> {
        let database = decoded(database)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if !database.chars().all(plain) {
            return Err(format!(
                "names the database {database:?}; letters, digits, - and _ are allowed"
            ));
        }
        if !database.is_empty() {
            self.database = database;
        }
        Ok(())
    }

    fn must_be_able_to_verify(self) -> Result<Self, String> {
        match (self.encryption, &self.files.ca) {
            (Encryption::Verify, None) => {
                Err("asks for a verified certificate; name its CA with --datastore-cafile".into())
            }
            (Encryption::Off, Some(_)) => Err("has a CA file and yet turns TLS off".into()),
            _ => Ok(self),
        }
    }

    /// Whether the server is reached through a socket of this board.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { engine, host, port, database, .. } = self;
        match self.is_socket() {
            true => write!(f, "{engine} at {host}, database {database}"),
            false => write!(f, "{engine} at {host}:{port}, database {database}"),
        }
    }
}

impl std::fmt::Debug for Server {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self} as {}", self.user)
    }
}

fn sslmode(mode: &str) -> Result<Encryption, String> {
    match mode {
        "disable" => Ok(Encryption::Off),
        "allow" | "prefer" => Ok(Encryption::Prefer),
        "require" => Ok(Encryption::Require),
        "verify-ca" | "verify-full" => Ok(Encryption::Verify),
        other => Err(format!("has sslmode={other}, which is not known")),
    }
}

fn go_tls(value: &str) -> Result<Encryption, String> {
    match value {
        "false" => Ok(Encryption::Off),
        "skip-verify" | "preferred" => Ok(Encryption::Require),
        "true" | "custom" => Ok(Encryption::Verify),
        other => Err(format!("has tls={other}; known: true, false, skip-verify")),
    }
}

fn number(port: &str) -> Result<u16, String> {
    // What stands there may be a part of a password that was not escaped.
    let hint = "; in passwords write : / ? @ as %3A %2F %3F %40";
    port.parse().map_err(|_| format!("has a port that is not a number{hint}"))
}

/// The options behind the question mark.
fn pairs(options: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |option: &str| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        Ok((decoded(name)?, decoded(value)?))
    };
    options.split('&').filter(|o| !o.is_empty()).map(pair).collect()
}

/// Undoes percent signs. What is wrong is not repeated: it may be a password.
fn decoded(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return Err("has a % without two hexadecimal digits; write % as %25".into()),
        }
    }
    String::from_utf8(out).map_err(|_| "is not UTF-8 once decoded".into())
}
