//! A database for one proof on an existing server, dropped afterwards.

use freehold::{
    Freehold, InitOptions, MigrateOptions, OperatorContext, Options, Passwords, SealMode,
};
use tokio_postgres::Client;
use uuid::Uuid;

use freehold_prove::{BaselineCode, Failure, System};
use freehold_server::database_url::{with_database, with_user};

/// The prefix of the database's name.
const PREFIX: &str = "freehold_prove_";

/// How the database is prepared.
pub(crate) struct Preparation {
    /// The password of freehold_app, if the server has that role already.
    pub(crate) app_password: Option<String>,
    /// The password of freehold_owner, if the server has that role already.
    pub(crate) owner_password: Option<String>,
    pub(crate) code: BaselineCode,
    /// By default the best that is possible.
    pub(crate) seal: Option<SealMode>,
    /// By a role with CREATEROLE that owns the database, as on managed servers.
    pub(crate) without_superuser: bool,
}

/// A prepared database; [`remove`](Scratch::remove) drops it.
pub(crate) struct Scratch {
    admin: Client,
    name: String,
    /// Owns the database if it is prepared without a superuser.
    landlord: Option<String>,
    roles_made: Vec<String>,
    pub(crate) system: System,
}

impl Scratch {
    /// Creates one on the server of `admin_url`, as its superuser. Roles belong to the whole server: existing
    /// ones keep their passwords, which are then needed.
    pub(crate) async fn create(
        admin_url: &str,
        preparation: Preparation,
    ) -> Result<Scratch, Failure> {
        let admin = freehold::connect_bare(admin_url).await?;
        let name = format!("{PREFIX}{}", Uuid::new_v4().simple());
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let system = System {
            code: preparation.code,
            is_hardened: !preparation.without_superuser,
            superuser_url: with_database(admin_url, &name),
            app_url: String::new(),
            owner_url: String::new(),
            pooler_url: None,
        };
        let mut scratch = Scratch { admin, name, landlord: None, roles_made: Vec::new(), system };
        match scratch.prepare(preparation).await {
            Ok(()) => Ok(scratch),
            Err(error) => {
                // The first error is the one to report.
                let _ = scratch.remove().await;
                Err(error)
            }
        }
    }

    /// The URL to run `init` with.
    async fn init_url(&mut self, without_superuser: bool) -> Result<String, Failure> {
        let superuser_url = self.system.superuser_url.clone();
        if !without_superuser {
            return Ok(superuser_url);
        }
        let (landlord, password) = (format!("{}_landlord", self.name), made_up_password());
        let create = format!("CREATE ROLE {landlord} LOGIN CREATEROLE PASSWORD '{password}'");
        self.admin.batch_execute(&create).await?;
        self.landlord = Some(landlord.clone());
        let give = format!("ALTER DATABASE {} OWNER TO {landlord}", self.name);
        self.admin.batch_execute(&give).await?;
        Ok(with_user(&superuser_url, &landlord, &password))
    }

    async fn prepare(&mut self, preparation: Preparation) -> Result<(), Failure> {
        let Preparation { app_password, owner_password, code, seal, without_superuser } =
            preparation;
        let url = self.init_url(without_superuser).await?;
        let options = InitOptions { seal, ..InitOptions::default() };
        self.roles_made = freehold::init(&url, &options).await?.roles_created;
        let password_of = |role: &str, given: Option<String>| {
            if self.roles_made.iter().any(|made| made == role) {
                return Ok(given.unwrap_or_else(made_up_password));
            }
            given.ok_or_else(|| {
                format!(
                    "the server has the role {role} already, whose password is not changed here: \
                     give --app-password and --owner-password"
                )
            })
        };
        let app = password_of("freehold_app", app_password)?;
        let owner = password_of("freehold_owner", owner_password)?;
        if !self.roles_made.is_empty() {
            let passwords = Passwords {
                app: Some(app.clone()),
                owner: Some(owner.clone()),
                ..Passwords::default()
            };
            let options = InitOptions { passwords, seal, ..InitOptions::default() };
            freehold::init(&url, &options).await?;
        }
        self.system.app_url = with_user(&url, "freehold_app", &app);
        self.system.owner_url = with_user(&url, "freehold_owner", &owner);
        let options = Options::new(&self.system.app_url).owner_url(&self.system.owner_url);
        let freehold = Freehold::connect(&options).await?;
        freehold
            .migrations()
            .up(
                &OperatorContext::system("a scratch system"),
                &freehold_prove::baseline(code),
                MigrateOptions::default(),
                &|_, _| {},
            )
            .await?;
        freehold.close();
        Ok(())
    }

    /// The database's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Drops the database, and the roles that were made for it.
    pub(crate) async fn remove(self) -> Result<(), Failure> {
        let name = &self.name;
        self.admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        for role in self.roles_made.iter().rev().chain(&self.landlord) {
            // First the privileges on server-wide objects that were granted to it, such as on a setting.
            self.admin.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await?;
        }
        Ok(())
    }
}

fn made_up_password() -> String {
    Uuid::new_v4().simple().to_string()
}
