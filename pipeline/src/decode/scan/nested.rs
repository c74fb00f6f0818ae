//! Values that hold other values: objects, lists, JSON kept as text, and documents inside a string.
//!
//! Owns: the extents of lists and structs, and embedded documents. These are scanned in place, in their escaped form. In the
//! second scan of a record they are unescaped into the scratch of the slots. Does not own: the keys of an object (`object`),
//! scalars (`value`).
//!
//! Limits: arrays and objects nested `DEPTH_MAX` deep; `ITEMS_MAX` items in a list. An item of two bytes becomes about seventy
//! bytes of slots, values and pages. Without a limit, a record that consists of items would take much more memory than its
//! size.

use crate::dataset::plan::{Action, InputId, NodeId, ShapeId, Spot};
use crate::dead_letter::code::Code;
use crate::decode::scan::inner::{broken, gap};
use crate::decode::scan::{Stop, Walk};
use crate::decode::skip::{self, DEPTH_MAX, white_space};
use crate::decode::slots::{Buffer, ShapeSlot, Slot};
use crate::decode::text::{self, PADDING};

/// The most items in a list.
const ITEMS_MAX: u32 = 100_000;

impl<'w> Walk<'w> {
    pub(super) fn nested<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        action: &'w Action,
        (spot, is_lenient): (Spot, bool),
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        let byte = buffer.get(at).copied().unwrap_or(0);
        if byte == b'n' {
            return skip::literal(buffer, at, b"null").map_err(|(code, at)| broken::<INNER>(code, at));
        }
        match action {
            Action::Json(input) => self.json::<INNER>(buffer, at, *input, index, depth),
            Action::Object { node, shape, json, embedded } => match byte {
                b'{' => {
                    if INNER && json.is_some() {
                        return Err(Stop::Unescape);
                    }
                    let end = self.object::<INNER>(buffer, at, *node, index, depth + 1)?;
                    self.whole(*shape, *json, at, end, index);
                    Ok(end)
                }
                b'"' if *embedded && !INNER => self.embedded(buffer, at, *node, *shape, *json, spot, depth),
                _ => self.wrong_type::<INNER>(buffer, at, (spot, is_lenient), depth),
            },
            Action::Marked { node, otherwise } => {
                if byte == b'{' && !INNER {
                    self.object::<INNER>(buffer, at, *node, index, depth + 1)?;
                }
                match &**otherwise {
                    Action::Skip => self.skip::<INNER>(buffer, at, depth),
                    Action::Take(inputs) => self.scalar::<INNER>(buffer, at, inputs, None, index, depth),
                    action => self.nested::<INNER>(buffer, at, action, (spot, is_lenient), index, depth),
                }
            }
            Action::List { shape, element } if byte == b'[' => {
                self.list::<INNER>(buffer, at, *shape, self.slots.records, depth, |walk, buffer, at, index| {
                    walk.scalar::<INNER>(buffer, at, &[*element], None, index, depth + 1)
                })
            }
            Action::Objects { shape, node } if byte == b'[' => {
                self.list::<INNER>(buffer, at, *shape, self.slots.records, depth, |walk, buffer, at, index| {
                    if buffer.get(at) == Some(&b'{') {
                        walk.object::<INNER>(buffer, at, *node, index, depth + 2)
                    } else {
                        walk.null_object::<INNER>(buffer, at, *shape, (spot, index), depth + 1)
                    }
                })
            }
            _ => self.wrong_type::<INNER>(buffer, at, (spot, is_lenient), depth),
        }
    }

    fn json<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        input: InputId,
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        if INNER {
            return Err(Stop::Unescape);
        }
        let end = self.skip::<INNER>(buffer, at, depth)?;
        self.slots.push(input, Slot::text(self.text_buffer, at, end, false, index));
        Ok(end)
    }

    /// Stores the presence of an object and its JSON text, if the plan asks for them.
    fn whole(&mut self, shape: Option<ShapeId>, json: Option<InputId>, at: usize, end: usize, index: u32) {
        if let Some(shape) = shape {
            self.slots.shapes[shape].push(ShapeSlot { record: index, first: 0, count: 1 });
        }
        if let Some(input) = json {
            self.slots.push(input, Slot::text(self.text_buffer, at, end, false, index));
        }
    }

    #[cold]
    fn wrong_type<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        (spot, is_lenient): (Spot, bool),
        depth: u32,
    ) -> Result<usize, Stop> {
        self.note_or_null(Code::WrongType, spot, is_lenient);
        self.skip::<INNER>(buffer, at, depth)
    }

    /// What is not an object in a list of objects, with its number: null, or a value of a wrong type.
    #[cold]
    fn null_object<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        shape: ShapeId,
        (spot, index): (Spot, u32),
        depth: u32,
    ) -> Result<usize, Stop> {
        self.slots.null_elements[shape].push(index);
        if buffer.get(at) == Some(&b'n') {
            return skip::literal(buffer, at, b"null").map_err(|(code, at)| broken::<INNER>(code, at));
        }
        self.wrong_type::<INNER>(buffer, at, (spot, self.plan.shapes[shape].is_lenient), depth)
    }

    /// The list that is a value of a map. `index` is the number of the map's element.
    pub(super) fn list_of_map<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        (shape, element): (ShapeId, InputId),
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        match buffer.get(at) {
            Some(b'[') => self.list::<INNER>(buffer, at, shape, index, depth, |walk, buffer, at, index| {
                walk.scalar::<INNER>(buffer, at, &[element], None, index, depth + 1)
            }),
            Some(b'n') => skip::literal(buffer, at, b"null").map_err(|(code, at)| broken::<INNER>(code, at)),
            _ => {
                self.note_value(Code::WrongType, element);
                self.skip::<INNER>(buffer, at, depth)
            }
        }
    }

    /// An array of `record` (of an element of a map, if the shape is within one). `element` scans one element and returns
    /// its end.
    #[inline]
    fn list<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        shape: ShapeId,
        record: u32,
        depth: u32,
        mut element: impl FnMut(&mut Self, &[u8], usize, u32) -> Result<usize, Stop>,
    ) -> Result<usize, Stop> {
        if depth + 1 > DEPTH_MAX {
            return Err(Stop::Broken(Code::TooDeep, at));
        }
        let first = self.slots.element_count(shape);
        let mut at = gap::<INNER>(buffer, at + 1);
        if buffer.get(at) == Some(&b']') {
            at += 1;
        } else {
            loop {
                let index = self.slots.next_element(shape);
                if index - first >= ITEMS_MAX {
                    return self.too_many::<INNER>(buffer, at, shape, depth);
                }
                at = element(self, buffer, at, index)?;
                if !matches!(buffer.get(at), Some(b',' | b']')) {
                    at = gap::<INNER>(buffer, at);
                }
                match buffer.get(at) {
                    Some(b',') => at = gap::<INNER>(buffer, at + 1),
                    Some(b']') => break,
                    _ => return Err(broken::<INNER>(Code::NotJson, at)),
                }
            }
            at += 1;
        }
        let count = self.slots.element_count(shape) - first;
        self.slots.shapes[shape].push(ShapeSlot { record, first, count });
        Ok(at)
    }

    /// Skips the rest of an array, of which an item begins at `at`: the record will not become a row.
    #[cold]
    fn too_many<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        mut at: usize,
        shape: ShapeId,
        depth: u32,
    ) -> Result<usize, Stop> {
        self.note(Code::TooLarge, Spot::Shape(shape));
        loop {
            at = gap::<INNER>(buffer, self.skip::<INNER>(buffer, at, depth + 1)?);
            match buffer.get(at) {
                Some(b',') => at = gap::<INNER>(buffer, at + 1),
                Some(b']') => return Ok(at + 1),
                _ => return Err(broken::<INNER>(Code::NotJson, at)),
            }
        }
    }

    /// A string that holds an object's JSON; `at` is its quote. An empty string is a missing object.
    fn embedded(
        &mut self,
        buffer: &[u8],
        at: usize,
        node: NodeId,
        shape: Option<ShapeId>,
        json: Option<InputId>,
        spot: Spot,
        depth: u32,
    ) -> Result<usize, Stop> {
        let index = self.slots.records;
        if buffer.get(at + 1) == Some(&b'"') {
            return Ok(at + 2);
        }
        if self.in_place {
            if buffer.get(at + 1) != Some(&b'{') || json.is_some() {
                return Err(Stop::Unescape);
            }
            let end = self.object::<true>(buffer, at + 1, node, index, depth + 1).map_err(|_| Stop::Unescape)?;
            if buffer.get(end) != Some(&b'"') {
                return Err(Stop::Unescape);
            }
            self.whole(shape, None, at + 1, end, index);
            return Ok(end + 1);
        }
        let end = text::end_of_string(buffer, at + 1, &mut self.high)?;
        let mut scratch = std::mem::take(&mut self.slots.scratch);
        let begin = scratch.len();
        text::unescape(&buffer[at + 1..end.end], &mut scratch);
        let inner_end = scratch.len();
        scratch.resize(inner_end + PADDING, 0);
        let outer = std::mem::replace(&mut self.text_buffer, Buffer::Scratch);
        let before = self.rejection;
        let first = white_space(&scratch, begin);
        let walked = if scratch.get(first) == Some(&b'{') {
            self.object::<false>(&scratch, first, node, index, depth + 1)
        } else {
            Err(Stop::Broken(Code::BadEmbeddedJson, first))
        };
        match walked {
            Ok(after) if white_space(&scratch, after) == inner_end => self.whole(shape, json, first, after, index),
            _ => {
                // An error in the unescaped text has no position in the record.
                self.rejection = before;
                self.note(Code::BadEmbeddedJson, spot);
            }
        }
        self.text_buffer = outer;
        self.slots.scratch = scratch;
        Ok(end.next)
    }
}
