//! `freehold tenant create|list|show|suspend|resume|weigh|owner|invitations|uninvite`.

use std::process::ExitCode;

use clap::Subcommand;
use freehold::control::invitations::TenantInvitation;
use freehold::control::tenants::{NewOwner, NewTenant};
use freehold::{ErrorKind, Freehold, IdentityId, OperatorContext, Tenant, TenantId};
use uuid::Uuid;

use super::listing::{self, Listing, Wanted};
use super::operator::Means;
use super::output::Output;
use super::{Common, Failure, Why, words};

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
        #[command(flatten)]
        why: Why,
    },
    /// Add an owner to a tenant, for example to one that has none
    Owner {
        #[command(flatten)]
        common: Common,
        /// Its slug, id or schema
        tenant: String,
        /// The owner's e-mail
        email: String,
        #[command(flatten)]
        owner_is: Means,
        #[command(flatten)]
        why: Why,
    },
    /// List tenants in the order of their slugs
    List {
        #[command(flatten)]
        common: Common,
        /// Begin after this slug
        #[arg(long)]
        after: Option<String>,
        /// How many at most; all, if not given
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Show one tenant
    Show {
        #[command(flatten)]
        common: Common,
        /// Its slug, id or schema
        tenant: String,
    },
    /// Refuse a tenant's requests from now on; its data stays
    Suspend {
        #[command(flatten)]
        common: Common,
        /// Its slug, id or schema
        tenant: String,
        #[command(flatten)]
        why: Why,
    },
    /// Give a tenant another part of the connections, where not all can have one
    Weigh {
        #[command(flatten)]
        common: Common,
        /// Its slug, id or schema
        tenant: String,
        /// 1 to 100: one of weight 3 has three for each that one of weight 1 has
        weight: i16,
        #[command(flatten)]
        why: Why,
    },
    /// Serve a suspended tenant again
    Resume {
        #[command(flatten)]
        common: Common,
        /// Its slug, id or schema
        tenant: String,
        #[command(flatten)]
        why: Why,
    },
    /// List a tenant's invitations that have not been accepted, by members and operators
    Invitations {
        #[command(flatten)]
        common: Common,
        /// Its slug, id or schema
        tenant: String,
        /// Begin after this e-mail
        #[arg(long)]
        after: Option<String>,
        /// How many at most; all, if not given
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Withdraw an invitation, by a member or an operator
    Uninvite {
        #[command(flatten)]
        common: Common,
        /// Its slug, id or schema
        tenant: String,
        /// The e-mail that was invited
        email: String,
        #[command(flatten)]
        why: Why,
    },
}

pub(super) async fn run(command: TenantCommand) -> Result<ExitCode, Failure> {
    match command {
        TenantCommand::Create { common, slug, name, owner, owner_is, why } => {
            let context = why.context("freehold tenant create")?;
            if owner.is_none() && owner_is.existing {
                return Err("--existing says who --owner is; give --owner too".into());
            }
            if owner.is_none() && !owner_is.invites() {
                return Err(
                    "a password (--password or FREEHOLD_PASSWORD) is the owner's: give --owner too"
                        .into(),
                );
            }
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let invited = owner.as_ref().filter(|_| owner_is.invites()).cloned();
            let owner =
                owner.map(|email| NewOwner { person: owner_is.named(email), name: String::new() });
            let name = name.unwrap_or_else(|| slug.clone());
            let new = NewTenant { slug, name, owner, idempotency: None };
            let made = freehold.tenants().create(&context, new).await?;
            print(&common, &made.tenant);
            if let Some(email) = invited {
                Output::note(&format!("{email} is invited: a server sends the message"));
            }
        }
        TenantCommand::Owner { common, tenant, email, owner_is, why } => {
            let context = why.context("freehold tenant owner")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let Tenant { id, slug, .. } = find(&freehold, &context, &tenant).await?;
            let invites = owner_is.invites();
            let owner = NewOwner { person: owner_is.named(email.clone()), name: String::new() };
            freehold.tenants().add_owner(&context, id, owner).await?;
            if common.json {
                Output::json(
                    &serde_json::json!({"tenant": id, "email": email, "invited": invites}),
                );
            } else if invites {
                Output::text(&format!(
                    "{email} is invited to own {slug}: a server sends the message"
                ));
            } else {
                Output::text(&format!("{email} is an owner of {slug}"));
            }
        }
        TenantCommand::List { common, after, limit } => {
            let context = OperatorContext::system("freehold tenant list");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let slug = |tenant: &Tenant| tenant.slug.to_string();
            let list = listing::by_key(Wanted::of(limit), after, slug, async |after, size| {
                freehold.tenants().list(&context, after, Some(size)).await
            });
            print_list(&common, &list.await?);
        }
        TenantCommand::Show { common, tenant } => {
            let context = OperatorContext::system("freehold tenant show");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            print(&common, &find(&freehold, &context, &tenant).await?);
        }
        TenantCommand::Suspend { common, tenant, why } => {
            let context = why.context("freehold tenant suspend")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = find(&freehold, &context, &tenant).await?.id;
            print(&common, &freehold.tenants().suspend(&context, id).await?);
        }
        TenantCommand::Weigh { common, tenant, weight, why } => {
            let context = why.context("freehold tenant weigh")?;
            let weight = weight.try_into()?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = find(&freehold, &context, &tenant).await?.id;
            print(&common, &freehold.tenants().weigh(&context, id, weight).await?);
        }
        TenantCommand::Resume { common, tenant, why } => {
            let context = why.context("freehold tenant resume")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = find(&freehold, &context, &tenant).await?.id;
            print(&common, &freehold.tenants().resume(&context, id).await?);
        }
        TenantCommand::Invitations { common, tenant, after, limit } => {
            let context = OperatorContext::system("freehold tenant invitations");
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let id = find(&freehold, &context, &tenant).await?.id;
            let email = |listed: &TenantInvitation| listed.invitation.email.clone();
            let list = listing::by_key(Wanted::of(limit), after, email, async |after, size| {
                freehold.invitations().list_of(&context, id, after, Some(size)).await
            });
            print_invitations(&common, &list.await?);
        }
        TenantCommand::Uninvite { common, tenant, email, why } => {
            let context = why.context("freehold tenant uninvite")?;
            let freehold = Freehold::connect(&common.database.options()?).await?;
            let Tenant { id, slug, .. } = find(&freehold, &context, &tenant).await?;
            let invitation = freehold.invitations().find_id(&context, id, &email).await?;
            freehold.invitations().withdraw(&context, id, invitation).await?;
            match common.json {
                true => Output::json(&serde_json::json!({"id": invitation, "withdrawn": true})),
                false => Output::text(&format!("{email} is not invited to {slug} any more")),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The tenant with this slug, id or schema.
pub(super) async fn find(
    freehold: &Freehold,
    context: &OperatorContext,
    name: &str,
) -> Result<Tenant, freehold::Error> {
    let name = name.trim();
    let id = name.parse::<Uuid>().ok().map(TenantId::from).or_else(|| TenantId::of_schema(name));
    if let Some(id) = id {
        match freehold.tenants().get(context, id).await {
            // A slug may look like an id.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => return found,
        }
    }
    freehold.tenants().get_by_slug(context, name).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => freehold::Error::new(
            ErrorKind::NotFound,
            format!("there is no such tenant: no slug, id or schema of one is {name:?}"),
        ),
        _ => error,
    })
}

/// [`find`] for an optional tenant.
pub(super) async fn find_id(
    freehold: &Freehold,
    context: &OperatorContext,
    name: Option<&str>,
) -> Result<Option<TenantId>, freehold::Error> {
    match name {
        Some(name) => Ok(Some(find(freehold, context, name).await?.id)),
        None => Ok(None),
    }
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

fn print_list(common: &Common, list: &Listing<Tenant>) {
    list.print(common.json, "--after", "There are no tenants.", |tenants| {
        let mut rows =
            vec![["SLUG", "STATUS", "VERSION", "ID", "NAME"].map(str::to_owned).to_vec()];
        rows.extend(tenants.iter().map(|t| {
            vec![
                t.slug.to_string(),
                t.status.as_str().to_owned(),
                t.version.to_string(),
                t.id.to_string(),
                t.name.clone(),
            ]
        }));
        rows
    });
}

fn print_invitations(common: &Common, list: &Listing<TenantInvitation>) {
    list.print(common.json, "--after", "No invitations wait.", |list| {
        let heading = ["EMAIL", "ROLE", "EXPIRES", "INVITED BY", "ID"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(list.iter().map(|listed| {
            let by = match (listed.by_operator, listed.invited_by) {
                (_, IdentityId::SYSTEM) => "system".to_owned(),
                (true, id) => format!("operator {id}"),
                (false, id) => format!("member {id}"),
            };
            vec![
                listed.invitation.email.clone(),
                listed.invitation.role.as_str().to_owned(),
                words::time(listed.invitation.expires_at),
                by,
                listed.invitation.id.to_string(),
            ]
        }));
        rows
    });
}
