//! Building the decode tree: fields are added by JSON Pointer, in any order, then built into nodes.
//!
//! Owns: which readings of one field are compatible. A value and its JSON text are; a string and an object are not, unless
//! the field is embedded JSON. Does not own: what is read (`compile`).

use crate::dataset::keys::{AllowList, KeyIndex, Literal};
use crate::dataset::plan::{Action, Field, InputId, MapInputs, Node, NodeId, ShapeId, Unknown};
use crate::dataset::pointer::Pointer;

/// A field under construction.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    children: Vec<(String, Draft)>,
    takes: Vec<InputId>,
    json: Option<InputId>,
    structure: Option<ShapeId>,
    repeated: Option<Repeated>,
    embedded: bool,
    /// Whether this dataset reads the field, or one inside it.
    own: bool,
    /// Whether a value of a wrong type rejects the record.
    strict: bool,
    marker: u64,
    equals: Vec<(Box<[u8]>, u64)>,
    /// Whether this dataset recognizes records by comparing it with a string.
    compared: bool,
    unknown: Unknown,
}

#[derive(Debug)]
enum Repeated {
    List { shape: ShapeId, element: InputId },
    Objects { shape: ShapeId, element: Box<Draft> },
}

/// What is read at a field.
pub(crate) enum Target {
    /// Nothing is read: the field is known, and checked for form.
    Known,
    Take(InputId),
    Json(InputId),
    Struct(ShapeId),
    List {
        shape: ShapeId,
        element: InputId,
    },
    Objects {
        shape: ShapeId,
        /// For each member: the pointer in the element, what is read there, and whether it is lenient.
        members: Vec<(Pointer, Target, bool)>,
    },
    /// The keys of an object that no column of their own reads.
    Map(MapInputs),
}

impl Draft {
    /// Adds a target at a pointer. `is_lenient`: a value of a wrong type is null there, and does not reject the record.
    ///
    /// # Errors
    /// A sentence for the user, if the field is already read in an incompatible way.
    pub(crate) fn add(&mut self, pointer: &Pointer, target: Target, is_lenient: bool) -> Result<(), String> {
        let draft = self.own(pointer);
        draft.strict |= !is_lenient;
        match target {
            Target::Known => {}
            Target::Take(input) => {
                if !draft.takes.contains(&input) {
                    draft.takes.push(input);
                }
            }
            Target::Json(input) => draft.json = Some(input),
            Target::Struct(shape) if draft.structure.is_none() => draft.structure = Some(shape),
            Target::Map(inputs) if matches!(draft.unknown, Unknown::Skip) => draft.unknown = Unknown::Map(inputs),
            Target::Struct(_) | Target::Map(_) => return Err(twice(pointer)),
            _ if draft.repeated.is_some() => return Err(twice(pointer)),
            Target::List { shape, element } => draft.repeated = Some(Repeated::List { shape, element }),
            Target::Objects { shape, members } => {
                let mut element = Draft::default();
                for (below, target, is_lenient) in members {
                    element.add(&below, target, is_lenient)?;
                }
                draft.repeated = Some(Repeated::Objects { shape, element: Box::new(element) });
            }
        }
        Ok(())
    }

    /// Declares that a field may come as a string that holds JSON.
    pub(crate) fn embed(&mut self, pointer: &Pointer) {
        self.own(pointer).embedded = true;
    }

    /// Makes the presence of a field set bits. `own`: this dataset is recognized by them, not only other datasets.
    pub(crate) fn mark(&mut self, pointer: &Pointer, bits: u64, own: bool) {
        self.at(pointer, own).marker |= bits;
    }

    /// Makes a string value of a field set bits; `own` as in [`Draft::mark`].
    pub(crate) fn mark_value(&mut self, pointer: &Pointer, value: &str, bits: u64, own: bool) {
        let draft = self.at(pointer, own);
        draft.equals.push((value.as_bytes().into(), bits));
        draft.compared |= own;
    }

    /// Collects the top level's unknown keys.
    pub(crate) fn collect_unknown(&mut self, input: InputId, allow: AllowList) {
        self.unknown = Unknown::Collect { input, allow };
    }

    fn own(&mut self, pointer: &Pointer) -> &mut Draft {
        self.at(pointer, true)
    }

    /// Whether a value of a wrong type here, or in place of an object with fields, rejects the record.
    fn is_strict(&self) -> bool {
        self.strict || self.children.iter().any(|(_, child)| child.is_strict())
    }

    fn at(&mut self, pointer: &Pointer, own: bool) -> &mut Draft {
        let mut draft = self;
        for key in pointer.keys() {
            let position = draft.children.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
                draft.children.push((key.clone(), Draft::default()));
                draft.children.len() - 1
            });
            draft = &mut draft.children[position].1;
            draft.own |= own;
        }
        draft
    }

    /// Builds the nodes; the record itself is node 0.
    ///
    /// # Errors
    /// Sentences for the user, one for each field whose readings are incompatible.
    pub(crate) fn build(self) -> Result<Vec<Node>, Vec<String>> {
        let mut builder = Builder { nodes: Vec::new(), errors: Vec::new(), embedded: false };
        builder.object(self, "");
        if builder.errors.is_empty() { Ok(builder.nodes) } else { Err(builder.errors) }
    }
}

fn twice(pointer: &Pointer) -> String {
    format!("two columns read {pointer} as a list, map or struct; use one")
}

struct Builder {
    nodes: Vec<Node>,
    errors: Vec<String>,
    /// Whether the current fields are inside an embedded document.
    embedded: bool,
}

impl Builder {
    fn object(&mut self, draft: Draft, path: &str) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(Node::default());
        let keys = KeyIndex::new(draft.children.iter().map(|(key, _)| key.as_bytes().into()));
        if draft.children.len() > Node::FIELDS_MAX {
            self.errors.push(format!("{path}/: the dataset reads more than {} keys of one object", Node::FIELDS_MAX));
        }
        let fields = draft.children.into_iter().map(|(key, child)| self.field(&key, child, path)).collect();
        self.nodes[id] = Node { pointer: path.to_owned(), fields, keys, unknown: draft.unknown };
        id
    }

    fn field(&mut self, key: &str, mut draft: Draft, above: &str) -> Field {
        let pointer = format!("{above}/{}", key.replace('~', "~0").replace('/', "~1"));
        let (marker, foreign, compared) = (draft.marker, !draft.own, draft.compared);
        let is_lenient = !draft.is_strict();
        let equals = std::mem::take(&mut draft.equals);
        let action = self.action(draft, &pointer);
        let is_text = match &action {
            Action::Marked { otherwise, .. } => matches!(**otherwise, Action::Skip | Action::Take(_)),
            action => matches!(action, Action::Skip | Action::Take(_)),
        };
        if compared && !is_text {
            self.errors.push(format!("{pointer} is compared with a string and read as something else"));
        }
        let (plain, escaped) = (Literal::plain(key), Literal::escaped(key));
        Field { pointer, plain, escaped, foreign, is_lenient, marker, equals, action }
    }

    fn action(&mut self, mut draft: Draft, pointer: &str) -> Action {
        let is_map = !matches!(draft.unknown, Unknown::Skip);
        let has_fields = draft.children.iter().any(|(_, child)| child.own);
        let is_object = has_fields || draft.structure.is_some() || is_map;
        if !is_object && !draft.children.is_empty() {
            let marks = Draft { children: std::mem::take(&mut draft.children), ..Draft::default() };
            let node = self.object(marks, pointer);
            return Action::Marked { node, otherwise: Box::new(self.action(draft, pointer)) };
        }
        let readings = usize::from(!draft.takes.is_empty())
            + usize::from(is_object)
            + usize::from(draft.repeated.is_some())
            + usize::from(draft.json.is_some() && !is_object);
        if readings > 1 {
            self.errors
                .push(format!("{pointer} is read in two ways that exclude each other, such as a value and an object"));
        }
        if is_object {
            let (shape, json, embedded) = (draft.structure, draft.json, draft.embedded);
            if embedded && self.embedded {
                self.errors.push(format!(
                    "{pointer} is embedded in a document that is itself embedded; only one level is supported"
                ));
            }
            let outside = self.embedded;
            self.embedded |= embedded;
            let node = self.object(draft, pointer);
            self.embedded = outside;
            return Action::Object { node, shape, json, embedded };
        }
        if draft.embedded {
            self.errors.push(format!("{pointer} is named in embedded, but no column reads a field inside it"));
        }
        match (draft.repeated, draft.json) {
            (Some(Repeated::List { shape, element }), _) => Action::List { shape, element },
            (Some(Repeated::Objects { shape, element }), _) => {
                Action::Objects { shape, node: self.object(*element, pointer) }
            }
            (None, Some(json)) => Action::Json(json),
            (None, None) if draft.takes.is_empty() => Action::Skip,
            (None, None) => Action::Take(draft.takes),
        }
    }
}
