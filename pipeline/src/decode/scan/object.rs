//! The keys of an object: the field of each, and what happens to keys that are not fields.
//!
//! Owns: guessing the next key, the lookup if the guess is wrong, unknown keys (skipped, collected, or elements of a map), and
//! finding duplicate keys. Does not own: the values of fields (`value`).
//!
//! Limit: a plan knows at most 256 fields of one object.

use std::borrow::Cow;

use crate::dataset::keys::AllowList;
use crate::dataset::plan::{InputId, MapInputs, NodeId, Spot, Unknown};
use crate::dead_letter::code::Code;
use crate::decode::scan::inner::{colon, gap};
use crate::decode::scan::{Stop, Walk, next_in_order};
use crate::decode::skip::DEPTH_MAX;
use crate::decode::slots::{ShapeSlot, Slot};
use crate::decode::text;

/// Bytes of a denied key that are kept if its name is asked for.
const NAME_BYTES_MAX: usize = 256;

impl Walk<'_> {
    /// Scans the object at `at` (its brace) as `node`. `index` is the number of the record or element. Returns its end.
    ///
    /// `INNER`: the object is inside a JSON string, so that every quote is written `\"`.
    pub(super) fn object<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        node_id: NodeId,
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Broken(Code::TooDeep, at));
        }
        let plan = self.plan;
        let node = &plan.nodes[node_id];
        let begin = match &node.unknown {
            Unknown::Skip => (0, 0),
            Unknown::Map(map) => (self.slots.element_count(map.shape), self.slots.inputs[map.key].len()),
            Unknown::Collect { input, .. } => (0, self.slots.inputs[*input].len()),
        };
        let end = self.fields::<INNER>(buffer, at + 1, node_id, index, depth)?;
        match &node.unknown {
            Unknown::Skip => {}
            Unknown::Map(map) => self.end_map(buffer, map, begin, node_id),
            // Each key is followed by its value.
            Unknown::Collect { input, .. } => self.distinct(buffer, *input, begin.1, 2, node_id),
        }
        Ok(end)
    }

    /// Scans the fields of an object, from just after its opening brace to just after its closing brace.
    fn fields<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        mut at: usize,
        node_id: NodeId,
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        let plan = self.plan;
        let node = &plan.nodes[node_id];
        let mut seen = Seen::default();
        let mut guess = usize::from(self.expected[node_id][0]);
        let mut previous = 0;
        let mut first = true;
        loop {
            // Here is a key, or the end of an empty object.
            let mut found = None;
            if let Some(field) = node.fields.get(guess) {
                let literal = if INNER { &field.escaped } else { &field.plain };
                let length = literal.matches(buffer, at);
                if length > 0 {
                    at += length;
                    found = Some(guess);
                }
            }
            if found.is_none() {
                at = gap::<INNER>(buffer, at);
                if first && buffer.get(at) == Some(&b'}') {
                    return Ok(at + 1);
                }
                let key_begin = self.open_quote::<INNER>(buffer, at)?;
                let key = self.string::<INNER>(buffer, key_begin)?;
                at = colon::<INNER>(buffer, key.next)?;
                found = self.find(node_id, &buffer[key_begin..key.end], key.escaped);
                match found {
                    Some(field) => self.expected[node_id][previous] = next_in_order(field),
                    None => at = self.unknown::<INNER>(buffer, at, node_id, key_begin, key, depth)?,
                }
            }
            if let Some(number) = found {
                let field = &node.fields[number];
                if !seen.insert(number) {
                    if !field.foreign {
                        self.note(Code::DuplicateKey, Spot::Field(node_id, number));
                    }
                    at = self.skip::<INNER>(buffer, gap::<INNER>(buffer, at), depth)?;
                } else {
                    self.marks |= field.marker;
                    at = self.value::<INNER>(buffer, at, field, Spot::Field(node_id, number), index, depth)?;
                }
                previous = number + 1;
                guess = usize::from(self.expected[node_id][previous]);
            }
            first = false;
            // A comma or the end.
            match buffer.get(at) {
                Some(b',') => at += 1,
                Some(b'}') => return Ok(at + 1),
                _ => {
                    at = gap::<INNER>(buffer, at);
                    match buffer.get(at) {
                        Some(b',') => at += 1,
                        Some(b'}') => return Ok(at + 1),
                        _ => return Err(Stop::Broken(Code::NotJson, at)),
                    }
                }
            }
        }
    }

    /// Finds the field of a key that was not the expected one.
    fn find(&self, node: NodeId, key: &[u8], escaped: bool) -> Option<usize> {
        let keys = &self.plan.nodes[node].keys;
        if !escaped {
            return keys.find(key).map(usize::from);
        }
        let mut text = Vec::with_capacity(key.len());
        text::unescape(key, &mut text);
        keys.find(&text).map(usize::from)
    }

    /// Handles a key that is not a field of the object, and its value.
    fn unknown<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        node: NodeId,
        key_begin: usize,
        key: text::End,
        depth: u32,
    ) -> Result<usize, Stop> {
        let plan = self.plan;
        let (key_end, escaped) = (key.end, key.escaped);
        let text = &buffer[key_begin..key_end];
        match &plan.nodes[node].unknown {
            Unknown::Collect { input, allow } if entry_of(allow, text, escaped).is_some() => {
                let end = self.skip::<INNER>(buffer, at, depth)?;
                let index = self.slots.records;
                self.slots.push(*input, Slot::text(self.text_buffer, key_begin, key_end, escaped, index));
                self.slots.push(*input, Slot::text(self.text_buffer, at, end, false, index));
                Ok(end)
            }
            Unknown::Map(map) if let Some(entry) = entry_of(&map.allow, text, escaped) => {
                let index = self.slots.next_element(map.shape);
                self.slots.push(map.key, Slot::text(self.text_buffer, key_begin, key_end, escaped, index));
                let before = (self.rejection.is_some(), self.slots.nulled.len());
                let end = match map.lists {
                    None => self.scalar::<INNER>(buffer, at, &[map.value], None, index, depth)?,
                    Some(lists) => self.list_of_map::<INNER>(buffer, at, (lists, map.value), index, depth)?,
                };
                if before != (self.rejection.is_some(), self.slots.nulled.len()) {
                    self.name_entry(map.value, entry, before);
                }
                Ok(end)
            }
            unknown => {
                if !matches!(unknown, Unknown::Skip) {
                    self.deny(node, text, escaped);
                }
                self.skip::<INNER>(buffer, at, depth)
            }
        }
    }

    /// Counts a key that no allow-list has.
    #[inline]
    fn deny(&mut self, node: NodeId, key: &[u8], escaped: bool) {
        self.slots.denied_keys += 1;
        if let Some(names) = &mut self.slots.denied_names {
            // Enough to recognize a name; a key may be as long as a record.
            let key = &key[..key.len().min(NAME_BYTES_MAX)];
            let mut text = Vec::new();
            if escaped {
                text::unescape(key, &mut text);
            } else {
                text.extend_from_slice(key);
            }
            names.push((node, text.into()));
        }
    }

    /// Says of the faults of a map's value which entry of the allow-list its key is. `before`: whether there was a rejection
    /// before the value, and how many values were null.
    #[cold]
    fn name_entry(&mut self, input: InputId, entry: usize, (was_rejected, nulled): (bool, usize)) {
        let name = |spot: &mut Spot| {
            if *spot == Spot::Input(input) {
                *spot = Spot::Entry(input, entry);
            }
        };
        self.slots.nulled[nulled..].iter_mut().for_each(|nulled| name(&mut nulled.spot));
        if let Some(rejection) = self.rejection.as_mut().filter(|_| !was_rejected) {
            name(&mut rejection.spot);
        }
    }

    /// Stores the extent of a map. `first` is its first element, and `first_key` the first slot of its keys.
    fn end_map(&mut self, buffer: &[u8], map: &MapInputs, (first, first_key): (u32, usize), node: NodeId) {
        let count = self.slots.element_count(map.shape) - first;
        self.slots.shapes[map.shape].push(ShapeSlot { record: self.slots.records, first, count });
        self.distinct(buffer, map.key, first_key, 1, node);
    }

    /// Checks that the keys in an input's slots (every `step`th slot from `first` on) are different.
    fn distinct(&mut self, buffer: &[u8], input: InputId, first: usize, step: usize, node: NodeId) {
        let slots = &self.slots.inputs[input][first..];
        if slots.len() <= step {
            return;
        }
        let mut keys: Vec<_> = slots.iter().step_by(step).map(|slot| plain_text(buffer, *slot)).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            self.note(Code::DuplicateKey, Spot::Node(node));
        }
    }
}

/// The number of the entry that allows a key.
fn entry_of(allow: &AllowList, key: &[u8], escaped: bool) -> Option<usize> {
    if !escaped {
        return allow.find(key);
    }
    let mut text = Vec::with_capacity(key.len());
    text::unescape(key, &mut text);
    allow.find(&text)
}

/// The text of a slot without escapes. `buffer` is the one that contains it.
fn plain_text(buffer: &[u8], slot: Slot) -> Cow<'_, [u8]> {
    let bytes = slot.bytes(buffer, buffer);
    if !slot.is_escaped() {
        return Cow::Borrowed(bytes);
    }
    let mut text = Vec::with_capacity(bytes.len());
    text::unescape(bytes, &mut text);
    Cow::Owned(text)
}

/// The fields of an object that have occurred.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// Notes a field; `false` if it has occurred before.
    #[inline]
    fn insert(&mut self, field: usize) -> bool {
        let word = &mut self.0[field >> 6 & 3];
        let bit = 1 << (field & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}
