//! Actors, their roles, and the permission table. Pure.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::IdentityId;

/// The actor in a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// A person, or [`IdentityId::SYSTEM`].
    pub id: IdentityId,
    /// The role, which decides the privileges of the transaction in PostgreSQL.
    pub role: Role,
}

impl Actor {
    /// Work that no person asked for, with a member's rights.
    pub const SYSTEM: Actor = Actor { id: IdentityId::SYSTEM, role: Role::Member };
}

/// The role of an actor in a tenant, or on the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads the data.
    Viewer,
    /// Reads and writes the data.
    Member,
    /// Manages members too.
    Admin,
    /// Has an admin's rights, and only an owner may appoint or remove owners. The last one keeps the role.
    Owner,
    /// Runs the platform; belongs to no tenant.
    Operator,
}

/// The roles of a tenant's members, the lowest first.
pub(crate) const MEMBER_ROLES: [Role; 4] = [Role::Viewer, Role::Member, Role::Admin, Role::Owner];

impl Role {
    /// Every role: from the fewest rights to the most, then the one that has none in a tenant.
    pub const ALL: [Role; 5] =
        [Role::Viewer, Role::Member, Role::Admin, Role::Owner, Role::Operator];

    /// The role in lower case, as in the catalog, tokens and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Member => "member",
            Role::Admin => "admin",
            Role::Owner => "owner",
            Role::Operator => "operator",
        }
    }

    /// Parses a role that a membership may have: all except `operator`.
    pub fn parse_in_tenant(text: &str) -> Result<Role> {
        match text {
            "viewer" => Ok(Role::Viewer),
            "member" => Ok(Role::Member),
            "admin" => Ok(Role::Admin),
            "owner" => Ok(Role::Owner),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "the role must be one of viewer, member, admin, owner",
            )
            .field("role")),
        }
    }

    /// Whether an actor of this role may give `other` to a member, or take it away.
    ///
    /// No actor grants more than its own role; an operator has no rights inside a tenant.
    pub fn may_grant(self, other: Role) -> bool {
        let rank = |role: Role| match role {
            Role::Viewer => Some(0),
            Role::Member => Some(1),
            Role::Admin => Some(2),
            Role::Owner => Some(3),
            Role::Operator => None,
        };
        matches!((rank(self), rank(other)), (Some(own), Some(asked)) if own >= asked)
    }
}

/// What a caller asks to do. Each endpoint and each control function requires exactly one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the tenant's tables.
    ReadData,
    /// Change what is in the tenant's tables.
    WriteData,
    /// See who belongs to the tenant.
    ListMembers,
    /// Invite and remove members, and change their roles.
    ManageMembers,
    /// List all tenants.
    ListTenants,
    /// Create, suspend and resume tenants.
    ManageTenants,
    /// See violations, of any tenant.
    ListViolations,
    /// See slow queries: those of one's own tenant, or all.
    ListSlowQueries,
    /// See the audit record of people and tenants: of one's own tenant, or all.
    ListAudit,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 9] = [
        Action::ReadData,
        Action::WriteData,
        Action::ListMembers,
        Action::ManageMembers,
        Action::ListTenants,
        Action::ManageTenants,
        Action::ListViolations,
        Action::ListSlowQueries,
        Action::ListAudit,
    ];
}

/// The permission table: role × action.
pub fn permits(role: Role, action: Action) -> bool {
    match action {
        Action::ReadData | Action::ListMembers => {
            matches!(role, Role::Viewer | Role::Member | Role::Admin | Role::Owner)
        }
        Action::WriteData => matches!(role, Role::Member | Role::Admin | Role::Owner),
        Action::ManageMembers => matches!(role, Role::Admin | Role::Owner),
        Action::ListTenants | Action::ManageTenants | Action::ListViolations => {
            matches!(role, Role::Operator)
        }
        Action::ListSlowQueries | Action::ListAudit => matches!(role, Role::Owner | Role::Operator),
    }
}

/// [`permits`], as an error.
pub fn require(role: Role, action: Action) -> Result<()> {
    if permits(role, action) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Forbidden,
        format!("the role {} does not permit this", role.as_str()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table is reviewed as a whole: a change shows in the snapshot.
    #[test]
    fn the_permission_table_is_as_reviewed() {
        let mut table = String::new();
        for action in Action::ALL {
            let allowed: Vec<_> =
                Role::ALL.into_iter().filter(|r| permits(*r, action)).map(Role::as_str).collect();
            table.push_str(&format!("{action:?}: {}\n", allowed.join(" ")));
        }
        assert_eq!(
            table,
            "ReadData: viewer member admin owner\n\
             WriteData: member admin owner\n\
             ListMembers: viewer member admin owner\n\
             ManageMembers: admin owner\n\
             ListTenants: operator\n\
             ManageTenants: operator\n\
             ListViolations: operator\n\
             ListSlowQueries: owner operator\n\
             ListAudit: owner operator\n"
        );
    }

    #[test]
    fn nobody_grants_above_their_own_role() {
        assert!(Role::Owner.may_grant(Role::Owner));
        assert!(Role::Admin.may_grant(Role::Admin));
        assert!(!Role::Admin.may_grant(Role::Owner));
        assert!(!Role::Operator.may_grant(Role::Viewer));
        assert!(!Role::Owner.may_grant(Role::Operator));
    }
}
