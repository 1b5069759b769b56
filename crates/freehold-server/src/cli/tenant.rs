//! `freehold tenant create|list|show|suspend|resume|weigh|owner`.

use std::process::ExitCode;

use clap::Subcommand;
use freehold::control::tenants::{NewOwner, NewTenant};
use freehold::{Freehold, OperatorContext, Tenant};

use super::operator::Means;
use super::output::Output;
use super::{Common, Failure};

#[derive(Subcommand)]
pub(super) enum TenantCommand {
    /// Create a tenant: schema, baseline, policies, and its first owner
    Create {
        #[command(flatten)]
        common: Common,
        /// 3 to 63 of a-z, 0-9 and hyphens
        slug: String,
        /// What people call it; the slug if missing
        #[arg(long)]
        name: Option<String>,
        /// The e-mail of its first owner
        #[arg(long)]
        owner: Option<String>,
        #[command(flatten)]
        owner_is: Means,
    },
    /// Give a tenant an owner: one that has none, or whose owner is gone
    Owner {
        #[command(flatten)]
        common: Common,
        slug: String,
        /// The owner's e-mail
        email: String,
        #[command(flatten)]
        owner_is: Means,
    },
    /// List tenants in the order of their slugs
    List {
        #[command(flatten)]
        common: Common,
        /// Begin after this slug
        #[arg(long)]
        after: Option<String>,
        /// How many at most (200 a page)
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// Show one tenant
    Show {
        #[command(flatten)]
        common: Common,
        slug: String,
    },
    /// Refuse a tenant's requests from now on; its data stays
    Suspend {
        #[command(flatten)]
        common: Common,
        slug: String,
    },
    /// Give a tenant another part of the connections, where not all can have one
    Weigh {
        #[command(flatten)]
        common: Common,
        slug: String,
        /// 1 to 100: one of weight 3 has three for each that one of weight 1 has
        weight: i16,
    },
    /// Serve a suspended tenant again
    Resume {
        #[command(flatten)]
        common: Common,
        slug: String,
    },
}

pub(super) async fn run(command: TenantCommand) -> Result<ExitCode, Failure> {
    match command {
        TenantCommand::Create { common, slug, name, owner, owner_is } => {
            let context = OperatorContext::system("freehold tenant create");
            if owner.is_none() && owner_is.existing {
                return Err("--existing says who --owner is; give --owner too".into());
            }
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let invited = owner.as_ref().filter(|_| owner_is.invites()).cloned();
            let owner =
                owner.map(|email| NewOwner { person: owner_is.named(email), name: String::new() });
            let name = name.unwrap_or_else(|| slug.clone());
            let new = NewTenant { slug, name, owner, idempotency: None };
            let made = freehold.create_tenant(&context, new).await?;
            print(&common, &made.tenant);
            if let Some(email) = invited {
                Output::note(&format!("{email} is invited: a server sends the letter"));
            }
        }
        TenantCommand::Owner { common, slug, email, owner_is } => {
            let context = OperatorContext::system("freehold tenant owner");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.get_tenant_by_slug(&context, &slug).await?.id;
            let invites = owner_is.invites();
            let owner = NewOwner { person: owner_is.named(email.clone()), name: String::new() };
            freehold.add_owner(&context, id, owner).await?;
            if common.json {
                Output::json(
                    &serde_json::json!({"tenant": id, "email": email, "invited": invites}),
                );
            } else if invites {
                Output::text(&format!(
                    "{email} is invited to own {slug}: a server sends the letter"
                ));
            } else {
                Output::text(&format!("{email} is an owner of {slug}"));
            }
        }
        TenantCommand::List { common, after, limit } => {
            let context = OperatorContext::system("freehold tenant list");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let tenants = freehold.list_tenants(&context, after.as_deref(), Some(limit)).await?;
            print_list(&common, &tenants);
        }
        TenantCommand::Show { common, slug } => {
            let context = OperatorContext::system("freehold tenant show");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            print(&common, &freehold.get_tenant_by_slug(&context, &slug).await?);
        }
        TenantCommand::Suspend { common, slug } => {
            let context = OperatorContext::system("freehold tenant suspend");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.get_tenant_by_slug(&context, &slug).await?.id;
            print(&common, &freehold.suspend_tenant(&context, id).await?);
        }
        TenantCommand::Weigh { common, slug, weight } => {
            let context = OperatorContext::system("freehold tenant weigh");
            let weight = weight.try_into()?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.get_tenant_by_slug(&context, &slug).await?.id;
            print(&common, &freehold.weigh_tenant(&context, id, weight).await?);
        }
        TenantCommand::Resume { common, slug } => {
            let context = OperatorContext::system("freehold tenant resume");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = freehold.get_tenant_by_slug(&context, &slug).await?.id;
            print(&common, &freehold.resume_tenant(&context, id).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(common: &Common, tenant: &Tenant) {
    if common.json {
        return Output::json(tenant);
    }
    Output::text(&format!(
        "slug     {}\nname     {}\nid       {}\nschema   {}\nstatus   {}\nversion  {}\nweight   {}\ncreated  {}",
        tenant.slug,
        tenant.name,
        tenant.id,
        tenant.id.schema(),
        tenant.status.as_str(),
        tenant.version,
        tenant.weight.get(),
        tenant.created_at
    ));
}

fn print_list(common: &Common, tenants: &[Tenant]) {
    if common.json {
        return Output::json(&tenants);
    }
    let mut rows = vec![["SLUG", "STATUS", "VERSION", "ID", "NAME"].map(str::to_owned).to_vec()];
    rows.extend(tenants.iter().map(|t| {
        vec![
            t.slug.to_string(),
            t.status.as_str().to_owned(),
            t.version.to_string(),
            t.id.to_string(),
            t.name.clone(),
        ]
    }));
    Output::table(&rows);
}
