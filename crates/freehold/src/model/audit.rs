//! The actions that the record of changes knows. Pure.

macro_rules! actions {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// What an entry of the record says was done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum AuditAction {
            $($name),*
        }

        impl AuditAction {
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(AuditAction::$name => $text),*
                }
            }
        }

        /// The [`action`](crate::control::audit::AuditEntry::action) of every kind of entry.
        pub const AUDIT_ACTIONS: &[&str] = &[$($text),*];
    };
}

actions! {
    SessionStart = "session.start",
    SessionEnd = "session.end",
    SessionEndOthers = "session.end_others",
    SessionSwitch = "session.switch",
    SessionReuse = "session.reuse",
    PasswordSet = "password.set",
    PasswordChange = "password.change",
    PasswordRequest = "password.request",
    PasswordReset = "password.reset",
    AddressRequest = "address.request",
    AddressChange = "address.change",
    SignupRequest = "signup.request",
    PersonProve = "person.prove",
    PersonVouch = "person.vouch",
    PersonReset = "person.reset",
    PersonDisable = "person.disable",
    PersonEnable = "person.enable",
    PersonRemove = "person.remove",
    MemberInvite = "member.invite",
    MemberInviteAgain = "member.invite_again",
    MemberUninvite = "member.uninvite",
    MemberInviteEnd = "member.invite_end",
    MemberJoin = "member.join",
    MemberRole = "member.role",
    MemberRemove = "member.remove",
    TenantCreate = "tenant.create",
    TenantSuspend = "tenant.suspend",
    TenantResume = "tenant.resume",
    TenantWeigh = "tenant.weigh",
    TenantScript = "tenant.script",
    OwnerAdd = "owner.add",
    OwnerRaise = "owner.raise",
    OperatorCreate = "operator.create",
    OperatorRevoke = "operator.revoke",
    IndexCreate = "index.create",
    IndexDrop = "index.drop",
    IndexRestore = "index.restore",
    TableIsolate = "table.isolate",
    AnalyticsApply = "analytics.apply",
    AnalyticsRun = "analytics.run",
    MigrationAdopt = "migration.adopt",
    FleetMigrate = "fleet.migrate",
    FleetPause = "fleet.pause",
    FleetResume = "fleet.resume",
    KeyShow = "key.show",
    KeyRotate = "key.rotate",
    CatalogInit = "catalog.init",
}
