//! A database for one proof on an existing server, dropped afterwards.

use freehold::{
    Baseline, Freehold, InitOptions, MigrateOptions, OperatorContext, Options, Passwords,
};
use tokio_postgres::Client;
use uuid::Uuid;

use freehold_prove::{Failure, System};
use freehold_server::database_url::{with_database, with_user};

/// The prefix of the database's name.
const PREFIX: &str = "freehold_prove_";

/// A prepared database; [`remove`](Scratch::remove) drops it.
pub(crate) struct Scratch {
    admin: Client,
    name: String,
    roles_made: Vec<String>,
    pub(crate) system: System,
}

impl Scratch {
    /// Creates one on the server of `admin_url`, as its superuser. Roles belong to the whole server: existing
    /// ones keep their passwords, which are then needed.
    pub(crate) async fn create(
        admin_url: &str,
        app_password: Option<String>,
        owner_password: Option<String>,
        baseline: &Baseline,
    ) -> Result<Scratch, Failure> {
        let admin = freehold::connect_bare(admin_url).await?;
        let name = format!("{PREFIX}{}", Uuid::new_v4().simple());
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let system = System {
            superuser_url: with_database(admin_url, &name),
            app_url: String::new(),
            owner_url: String::new(),
            pooler_url: None,
        };
        let mut scratch = Scratch { admin, name, roles_made: Vec::new(), system };
        match scratch.prepare(app_password, owner_password, baseline).await {
            Ok(()) => Ok(scratch),
            Err(error) => {
                // The first error is the one to report.
                let _ = scratch.remove().await;
                Err(error)
            }
        }
    }

    async fn prepare(
        &mut self,
        app_password: Option<String>,
        owner_password: Option<String>,
        baseline: &Baseline,
    ) -> Result<(), Failure> {
        let url = self.system.superuser_url.clone();
        self.roles_made = freehold::init(&url, &InitOptions::default()).await?.roles_created;
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
            let options = InitOptions { passwords, ..InitOptions::default() };
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
                baseline,
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
        for role in self.roles_made.iter().rev() {
            // First the privileges on server-wide objects that were granted to it, such as on a setting.
            self.admin.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await?;
        }
        Ok(())
    }
}

fn made_up_password() -> String {
    Uuid::new_v4().simple().to_string()
}
