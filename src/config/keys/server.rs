//! The keys of `[server]`.

use crate::config::Settings;
use crate::server::Listen;
use crate::settings::{Fallback, Key, Kind};

pub(super) fn server_keys() -> Vec<Key<Settings>> {
    vec![Key {
        name: "listen",
        kind: Kind::Text {
            form: Listen::FORM,
            read: |settings, text| {
                settings.listen = Listen::parse(text)?;
                Ok(())
            },
            show: |settings| Some(settings.listen.to_string()),
        },
        default: Fallback::Depends("`127.0.0.1:8470`, or a free port if that is taken"),
        doc: "Where `run` listens; `replay start` has a flag of its own. Who can reach the address sees shards, positions and counts, and no record; put an \
              authenticating proxy before it if it is not loopback. An address that is given and cannot be used is an error.",
    }]
}
