//! The two sides of a comparison: lists of objects, each in its lake.
//!
//! Owns: which objects of a lake are compared. Does not own: reading them (`reading`).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::commit::ObjectKind;
use crate::commit::lake_log::{AddedObject, LakeAt, ObjectFilter, extent, lake_at};
use crate::lake::{ObjectKey, ObjectStore};
use crate::replay::diff::DiffError;
use crate::replay::{Plan, SupersededObject};

/// One side: objects of a lake.
#[derive(Clone)]
pub struct Side {
    /// The lake. Calls that fail are not repeated here.
    pub lake: Arc<dyn ObjectStore>,
    /// Its objects that are compared.
    pub objects: Vec<SideObject>,
}

/// An object of rows or dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideObject {
    /// Its key in the lake.
    pub key: ObjectKey,
    /// What it holds: rows or dead letters.
    pub kind: ObjectKind,
    /// The dataset of its rows.
    pub dataset: Option<String>,
    /// Rows or lines in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The ids of the fields whose values may be shown: the lake shows their bounds.
    pub may_show: BTreeSet<i32>,
}

impl From<&AddedObject> for SideObject {
    fn from(object: &AddedObject) -> Self {
        let shown = object.columns.columns().into_iter().filter(|column| column.bounds.is_some());
        SideObject {
            key: object.key.clone(),
            kind: object.kind,
            dataset: object.dataset.clone(),
            rows: object.rows,
            bytes: object.bytes,
            may_show: shown.map(|column| column.field_id).collect(),
        }
    }
}

impl Side {
    /// Both sides of a replay: what it would replace, and what is in its aside lake now.
    ///
    /// # Errors
    /// A lake fails, its log is damaged, or an object that the plan replaces was not live when it was made.
    pub async fn of_replay(
        lake: Arc<dyn ObjectStore>,
        aside: Arc<dyn ObjectStore>,
        plan: &Plan,
    ) -> Result<(Side, Side), DiffError> {
        let at = lake_at(&*lake, &extent(&*lake).await?, plan.version).await?;
        let old = Side::superseded(lake, &at, &plan.superseded).await?;
        let extent = extent(&*aside).await?;
        let at = lake_at(&*aside, &extent, extent.newest).await?;
        Ok((old, Side::live(aside, &at).await?))
    }

    /// All rows and dead letters that are live in a lake at a version.
    ///
    /// # Errors
    /// The lake fails, or its log is damaged.
    pub async fn live(lake: Arc<dyn ObjectStore>, at: &LakeAt) -> Result<Side, DiffError> {
        let mut objects = Vec::new();
        let mut live = at.live_objects(&*lake, ObjectFilter::default());
        while let Some(object) = live.next().await? {
            if object.kind != ObjectKind::Raw {
                objects.push(SideObject::from(&object));
            }
        }
        drop(live);
        Ok(Side { lake, objects })
    }

    /// The objects that a plan replaces. `at`: the lake at the version for which it was planned, whose log says which values may be shown.
    ///
    /// # Errors
    /// The lake fails, or its log is damaged.
    pub async fn superseded(
        lake: Arc<dyn ObjectStore>,
        at: &LakeAt,
        superseded: &[SupersededObject],
    ) -> Result<Side, DiffError> {
        let wanted = superseded.iter().filter(|object| object.kind != ObjectKind::Raw);
        let mut wanted: HashMap<&ObjectKey, &SupersededObject> = wanted.map(|object| (&object.key, object)).collect();
        let mut objects = Vec::with_capacity(wanted.len());
        let mut live = at.live_objects(&*lake, ObjectFilter::default());
        while let Some(object) = live.next().await? {
            if wanted.remove(&object.key).is_some() {
                objects.push(SideObject::from(&object));
            }
        }
        drop(live);
        match wanted.into_keys().min() {
            Some(key) => Err(DiffError::Gone { key: key.clone() }),
            None => Ok(Side { lake, objects }),
        }
    }
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side").field("objects", &self.objects).finish_non_exhaustive()
    }
}
