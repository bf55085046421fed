//! Real SQL servers.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use store::{Datastore, TlsFiles};

use crate::process::{Folder, Process, Recipe, free_port, run, tools};

/// What a test's databases are protected with.
const PASSWORD: &str = "s3cr3t@/:%";
const PASSWORD_IN_URL: &str = "s3cr3t%40%2F%3A%25";

/// A SQL server.
pub struct Sql {
    kind: Kind,
    port: u16,
    recipe: Recipe,
    // Before the folder, which must outlive it.
    pub process: Option<Process>,
    folder: Folder,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Postgres,
    Mysql,
}

impl Sql {
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, |_| Vec::new())
    }

    /// The same with more settings, which may use the server's folder.
    pub fn start_with(kind: Kind, more: impl Fn(&Path) -> Vec<String>) -> Self {
        let port = free_port();
        let (folder, mut recipe) = match kind {
            Kind::Postgres => postgres(port),
            Kind::Mysql => mariadb(port),
        };
        recipe.arguments.extend(more(&folder.path));
        let process = Some(Process::ready(&recipe, &folder.path));
        Self { kind, port, recipe, process, folder }
    }

    /// One that all tests share, each with a database of its own.
    pub fn shared(kind: Kind) -> Datastore {
        static SHARED: [OnceLock<Sql>; 2] = [OnceLock::new(), OnceLock::new()];
        let shared = &SHARED[usize::from(kind == Kind::Mysql)];
        shared.get_or_init(|| Self::start(kind)).database()
    }

    /// A database that nobody uses yet.
    pub fn database(&self) -> Datastore {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        self.named(&format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed)), self.port)
    }

    /// A database, reached through a port.
    pub fn named(&self, database: &str, port: u16) -> Datastore {
        let endpoint = self.endpoint(database, port);
        Datastore::parse(&endpoint, TlsFiles::default(), Path::new("")).expect("an endpoint")
    }

    /// What a user writes to reach it.
    pub fn endpoint(&self, database: &str, port: u16) -> String {
        match self.kind {
            Kind::Postgres => {
                format!("postgres://coracle:{PASSWORD_IN_URL}@127.0.0.1:{port}/{database}")
            }
            Kind::Mysql => {
                format!("mysql://coracle:{PASSWORD_IN_URL}@tcp(127.0.0.1:{port})/{database}")
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it; what it has committed must be there when it starts again.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    pub fn start_again(&mut self) {
        // Left behind by a killed server, and valid until its last process is gone.
        let _ = std::fs::remove_file(self.folder.path.join("data/postmaster.pid"));
        self.process = Some(Process::ready(&self.recipe, &self.folder.path));
    }
}

fn libraries(of: &str) -> (&'static str, String) {
    let at = |path: &str| tools(of).join(path).display().to_string();
    (
        "LD_LIBRARY_PATH",
        format!("{}:{}", at("usr/lib/x86_64-linux-gnu"), at("lib/x86_64-linux-gnu")),
    )
}

fn postgres(port: u16) -> (Folder, Recipe) {
    use std::os::unix::process::CommandExt;
    let folder = Folder::new("postgres");
    let programs = tools("postgres/usr/lib/postgresql/15/bin");
    let data = folder.path.join("data");
    // PostgreSQL refuses to run as root.
    std::os::unix::fs::chown(&folder.path, Some(65_534), Some(65_534)).expect("give the folder");
    let password = folder.path.join("password");
    std::fs::write(&password, PASSWORD).expect("write the password");
    std::os::unix::fs::chown(&password, Some(65_534), None).expect("give the file");
    let mut init = Command::new(programs.join("initdb"));
    init.arg("--pgdata").arg(&data).arg("--pwfile").arg(&password);
    init.args(["--username=coracle", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]);
    init.arg("--locale=C").env(libraries("postgres").0, libraries("postgres").1);
    run(init.uid(65_534).gid(65_534).current_dir(&folder.path));
    let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        format!("unix_socket_directories={}", folder.path.display()),
        "shared_buffers=16MB".into(),
        // In the data folder, so that nothing is left behind by a killed server.
        "dynamic_shared_memory_type=mmap".into(),
        "max_connections=300".into(),
    ];
    arguments.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
    let recipe = Recipe {
        program: programs.join("postgres"),
        arguments,
        environment: vec![libraries("postgres")],
        ready: "database system is ready to accept connections",
        unprivileged: true,
    };
    (folder, recipe)
}

fn mariadb(port: u16) -> (Folder, Recipe) {
    let folder = Folder::new("mariadb");
    let base = tools("mariadb/usr");
    let data = folder.path.join("data");
    let mut init = Command::new(base.join("bin/mariadb-install-db"));
    init.arg("--no-defaults").arg(format!("--basedir={}", base.display()));
    init.arg(format!("--datadir={}", data.display()));
    init.args(["--user=root", "--skip-test-db", "--innodb-log-file-size=16M"]);
    init.arg("--auth-root-authentication-method=normal");
    let path = std::env::var("PATH").unwrap_or_default();
    init.env("PATH", format!("{0}/bin:{0}/sbin:{path}", base.display()));
    init.env(libraries("mariadb").0, libraries("mariadb").1);
    run(init.current_dir(&folder.path));
    let first = folder.path.join("first.sql");
    let sql = format!(
        "CREATE USER IF NOT EXISTS 'coracle'@'%' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT ALL ON *.* TO 'coracle'@'%';\n"
    );
    std::fs::write(&first, sql).expect("write the first statements");
    let arguments = vec![
        "--no-defaults".to_owned(),
        format!("--basedir={}", base.display()),
        format!("--datadir={}", data.display()),
        format!("--socket={}", folder.path.join("socket").display()),
        format!("--pid-file={}", folder.path.join("mariadb.pid").display()),
        format!("--init-file={}", first.display()),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".into(),
        "--user=root".into(),
        "--innodb-log-file-size=16M".into(),
        "--innodb-buffer-pool-size=32M".into(),
        "--max-connections=300".into(),
    ];
    let recipe = Recipe {
        program: base.join("sbin/mariadbd"),
        arguments,
        environment: vec![libraries("mariadb")],
        ready: "ready for connections",
        unprivileged: false,
    };
    (folder, recipe)
}

/// What its administrator sees.
impl Sql {
    /// The oldest change but one that is still in the log.
    pub fn oldest_change(&self, database: &str) -> u64 {
        let sql = "SELECT revision FROM coracle_change ORDER BY revision LIMIT 1 OFFSET 1";
        let port = self.port.to_string();
        let mut command = match self.kind {
            Kind::Postgres => {
                let mut psql = Command::new(tools("postgres/usr/lib/postgresql/15/bin/psql"));
                psql.args(["-qAt", "-h", "127.0.0.1", "-U", "coracle", "-p", &port, "-c", sql]);
                psql.arg(database).env("PGPASSWORD", PASSWORD);
                psql.env(libraries("postgres").0, libraries("postgres").1);
                psql
            }
            Kind::Mysql => {
                let mut mariadb = Command::new(tools("mariadb/usr/bin/mariadb"));
                mariadb.args(["--no-defaults", "-N", "-B", "-h", "127.0.0.1", "-u", "coracle"]);
                mariadb.args([&format!("-p{PASSWORD}"), "-P", &port, "-e", sql, database]);
                mariadb.env(libraries("mariadb").0, libraries("mariadb").1);
                mariadb
            }
        };
        let output = command.output().expect("start a client");
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().unwrap_or_else(|_| {
            panic!("{text} {}", String::from_utf8_lossy(&output.stderr));
        })
    }
}
