//! One record, scanned once along its dataset's decode tree into slots.
//!
//! Owns: the walk, and what is wrong with a record's form and types. Does not own: constraints and columns (`resolve`),
//! framing and the choice of dataset (`mod`).
//!
//! How it is fast: producers write keys in the same order again and again, so the bytes at the cursor are compared with
//! the key that followed last time (`"key":`, one or two 16-byte compares) and looked up only on a miss. The order is a
//! guess, never a condition. Nothing is copied: slots hold places in the chunk.
//!
//! A fault of syntax ends the scan; a fault of meaning (wrong type, duplicate key) is noted, the first one counts, and the
//! scan goes on, because only the whole record tells which dataset it is of.

use std::borrow::Cow;

use crate::dataset::keys::AllowList;
use crate::dataset::plan::{Action, Field, InputId, InputKind, MapInputs, NodeId, Plan, ShapeId, Unknown};
use crate::decode::number::{self, Number};
use crate::decode::skip::{self, DEPTH_MAX, white_space};
use crate::decode::slots::{Place, ShapeSlot, Slot, Slots};
use crate::decode::text::{self, PADDING, TextFault};
use crate::reject::Code;

/// Where in a record a fault is, for its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    Record,
    Input(InputId),
    Field(NodeId, usize),
    /// An object of the decode tree.
    Node(NodeId),
    Shape(ShapeId),
    Leaf(usize),
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) spot: Spot,
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Marks that were seen, for recognizing the dataset.
    pub(crate) marks: u64,
    /// The first fault.
    pub(crate) fault: Option<Fault>,
    /// Whether the fault is one of syntax, so that the rest of the record was not seen.
    pub(crate) broken: bool,
}

/// Scans records along one plan.
#[derive(Debug)]
pub(crate) struct Scanner {
    /// For each node, the field that is expected first, and after each field.
    expected: Vec<Vec<u16>>,
}

impl Scanner {
    pub(crate) fn new(plan: &Plan) -> Self {
        let in_order = |fields: usize| (0..=fields).map(next_in_order).collect();
        Scanner { expected: plan.nodes.iter().map(|node| in_order(node.fields.len())).collect() }
    }

    /// Scans the record at `begin..end` of `buffer`, whose byte at `end` is 0. Its slots belong to the present record.
    pub(crate) fn scan(&mut self, plan: &Plan, slots: &mut Slots, buffer: &[u8], begin: usize, end: usize) -> Scanned {
        slots.begin();
        let scanned = self.scan_as::<true>(plan, slots, buffer, begin, end);
        match scanned {
            Ok(scanned) => scanned,
            Err(Unescape) => {
                // An embedded document has escapes of its own: once more, unescaping it first.
                slots.take_back();
                self.scan_as::<false>(plan, slots, buffer, begin, end).unwrap_or(Scanned {
                    marks: 0,
                    fault: Some(Fault { code: Code::NotJson, spot: Spot::Record }),
                    broken: true,
                })
            }
        }
    }

    fn scan_as<const IN_PLACE: bool>(
        &mut self,
        plan: &Plan,
        slots: &mut Slots,
        buffer: &[u8],
        begin: usize,
        end: usize,
    ) -> Result<Scanned, Unescape> {
        let mut walk = Walk {
            plan,
            expected: &mut self.expected,
            slots,
            place: Place::Chunk,
            marks: 0,
            high: 0,
            fault: None,
            in_place: IN_PLACE,
        };
        let walked = walk.record(buffer, begin, end);
        let broken = match walked {
            Ok(()) => walk.high != 0 && std::str::from_utf8(&buffer[begin..end]).is_err(),
            Err(Stop::Unescape) => return Err(Unescape),
            Err(Stop::Broken(..)) => true,
        };
        if broken {
            let code = match walked {
                _ if std::str::from_utf8(&buffer[begin..end]).is_err() => Code::NotUtf8,
                Err(Stop::Broken(Code::NotJson, at)) if at >= end && begin < end => Code::Truncated,
                Err(Stop::Broken(code, _)) => code,
                _ => Code::NotJson,
            };
            walk.fault = Some(Fault { code, spot: Spot::Record });
        }
        Ok(Scanned { marks: walk.marks, fault: walk.fault, broken })
    }
}

/// What an object's fields are expected to be in, until records show another order: the definition's.
fn next_in_order(field: usize) -> u16 {
    u16::try_from(field).unwrap_or(u16::MAX)
}

/// An embedded document must be unescaped before it can be scanned.
struct Unescape;

/// Why a walk ends early.
enum Stop {
    Broken(Code, usize),
    Unescape,
}

impl From<TextFault> for Stop {
    #[inline]
    fn from((code, at): TextFault) -> Self {
        Stop::Broken(code, at)
    }
}

struct Walk<'w> {
    plan: &'w Plan,
    expected: &'w mut Vec<Vec<u16>>,
    slots: &'w mut Slots,
    place: Place,
    marks: u64,
    high: u32,
    fault: Option<Fault>,
    /// Whether embedded documents are scanned where they are, in their escaped form.
    in_place: bool,
}

impl<'w> Walk<'w> {
    fn record(&mut self, buffer: &[u8], begin: usize, end: usize) -> Result<(), Stop> {
        let at = white_space(buffer, begin);
        let first = buffer.get(at).copied().unwrap_or(0);
        let after = if first == b'{' {
            self.object::<false>(buffer, at, 0, self.slots.records, 1)?
        } else {
            let after = skip::value(buffer, at, 0, &mut self.high)?;
            self.note(Code::NotAnObject, Spot::Record);
            after
        };
        let after = white_space(buffer, after);
        if after == end {
            return Ok(());
        }
        let code = match (first, buffer.get(after)) {
            (b'{' | b'[', Some(b'{' | b'[')) => Code::MultipleDocuments,
            (b'{' | b'[', _) => Code::TrailingBytes,
            // A line of a log or of CSV may begin like a number.
            _ => Code::NotJson,
        };
        Err(Stop::Broken(code, after))
    }

    #[cold]
    fn note(&mut self, code: Code, spot: Spot) {
        self.fault.get_or_insert(Fault { code, spot });
    }

    /// The object at `at` (its brace), read as `node`; `index` is the record's or element's number. Returns its end.
    ///
    /// `INNER`: the object stands inside a JSON string, so that every quote is written `\"`.
    fn object<const INNER: bool>(
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

    /// The fields of an object, from just after its brace to just after its other brace.
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
            // A key stands here, or the end of an empty object.
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

    #[inline]
    fn open_quote<const INNER: bool>(&self, buffer: &[u8], at: usize) -> Result<usize, Stop> {
        match (INNER, buffer.get(at), buffer.get(at + 1)) {
            (false, Some(b'"'), _) => Ok(at + 1),
            (true, Some(b'\\'), Some(b'"')) => Ok(at + 2),
            (true, ..) => Err(Stop::Unescape),
            (false, ..) => Err(Stop::Broken(Code::NotJson, at)),
        }
    }

    #[inline]
    fn string<const INNER: bool>(&mut self, buffer: &[u8], begin: usize) -> Result<text::End, Stop> {
        if INNER {
            text::end_of_inner_string(buffer, begin, &mut self.high).ok_or(Stop::Unescape)
        } else {
            Ok(text::end_of_string(buffer, begin, &mut self.high)?)
        }
    }

    /// Walks over a value. Inside an escaped document there are quotes to mind, so that it is unescaped instead.
    fn skip<const INNER: bool>(&mut self, buffer: &[u8], at: usize, depth: u32) -> Result<usize, Stop> {
        if !INNER {
            return Ok(skip::value(buffer, at, depth, &mut self.high)?);
        }
        self.skip_inner(buffer, at, depth)
    }

    /// The same for a value inside an escaped document.
    fn skip_inner(&mut self, buffer: &[u8], at: usize, depth: u32) -> Result<usize, Stop> {
        let at = match buffer.get(at) {
            Some(b'\\') => {
                let begin = self.open_quote::<true>(buffer, at)?;
                return Ok(self.string::<true>(buffer, begin)?.next);
            }
            Some(b'{' | b'[') => at + 1,
            Some(b'-' | b'0'..=b'9') => return number::scan(buffer, at).map(|n| n.end).map_err(|_| Stop::Unescape),
            Some(b't') => return skip::literal(buffer, at, b"true").map_err(|_| Stop::Unescape),
            Some(b'f') => return skip::literal(buffer, at, b"false").map_err(|_| Stop::Unescape),
            Some(b'n') => return skip::literal(buffer, at, b"null").map_err(|_| Stop::Unescape),
            _ => return Err(Stop::Unescape),
        };
        if depth >= DEPTH_MAX {
            return Err(Stop::Unescape);
        }
        let object = buffer[at - 1] == b'{';
        let close = if object { b'}' } else { b']' };
        let mut at = gap::<true>(buffer, at);
        if buffer.get(at) == Some(&close) {
            return Ok(at + 1);
        }
        loop {
            at = gap::<true>(buffer, at);
            if object {
                let begin = self.open_quote::<true>(buffer, at)?;
                let end = self.string::<true>(buffer, begin)?;
                at = colon::<true>(buffer, end.next)?;
            }
            at = gap::<true>(buffer, self.skip_inner(buffer, at, depth + 1)?);
            match buffer.get(at) {
                Some(b',') => at += 1,
                Some(byte) if *byte == close => return Ok(at + 1),
                _ => return Err(Stop::Unescape),
            }
        }
    }

    /// The field of a key that was not the expected one.
    fn find(&self, node: NodeId, key: &[u8], escaped: bool) -> Option<usize> {
        let keys = &self.plan.nodes[node].keys;
        if !escaped {
            return keys.find(key).map(usize::from);
        }
        let mut text = Vec::with_capacity(key.len());
        text::unescape(key, &mut text);
        keys.find(&text).map(usize::from)
    }

    /// A key that is not among the object's fields, and its value.
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
            Unknown::Collect { input, allow } if allows(allow, text, escaped) => {
                let end = self.skip::<INNER>(buffer, at, depth)?;
                let index = self.slots.records;
                self.slots.push(*input, Slot::text(self.place, key_begin, key_end, escaped, index));
                self.slots.push(*input, Slot::text(self.place, at, end, false, index));
                Ok(end)
            }
            Unknown::Map(map) if allows(&map.allow, text, escaped) => {
                let index = self.slots.next_element(map.shape);
                self.slots.push(map.key, Slot::text(self.place, key_begin, key_end, escaped, index));
                self.scalar::<INNER>(buffer, at, &[map.value], None, index, depth)
            }
            unknown => {
                self.slots.denied_keys += u64::from(!matches!(unknown, Unknown::Skip));
                self.skip::<INNER>(buffer, at, depth)
            }
        }
    }

    /// Stores a map's extent; `first` and `first_key` are where its elements and its keys' slots begin.
    fn end_map(&mut self, buffer: &[u8], map: &MapInputs, (first, first_key): (u32, usize), node: NodeId) {
        let count = self.slots.element_count(map.shape) - first;
        self.slots.shapes[map.shape].push(ShapeSlot { record: self.slots.records, first, count });
        self.distinct(buffer, map.key, first_key, 1, node);
    }

    /// Of the keys in an input's slots, each `step`th one from `first` on, none may be there twice.
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

    #[inline]
    fn value<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        field: &'w Field,
        spot: Spot,
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        let at =
            if matches!(buffer.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) { gap::<INNER>(buffer, at) } else { at };
        match &field.action {
            Action::Take(inputs) => self.scalar::<INNER>(buffer, at, inputs, Some(field), index, depth),
            Action::Skip if field.equals.is_empty() => self.skip::<INNER>(buffer, at, depth),
            Action::Skip => self.scalar::<INNER>(buffer, at, &[], Some(field), index, depth),
            action => {
                if !field.equals.is_empty() && !INNER && buffer.get(at) == Some(&b'"') {
                    let end = self.string::<INNER>(buffer, at + 1)?;
                    self.compare(field, &buffer[at + 1..end.end], end.escaped);
                }
                self.nested::<INNER>(buffer, at, action, spot, index, depth)
            }
        }
    }

    /// A scalar, stored for each of its inputs.
    #[inline]
    fn scalar<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        inputs: &[InputId],
        field: Option<&Field>,
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        let byte = buffer.get(at).copied().unwrap_or(0);
        if byte == if INNER { b'\\' } else { b'"' } {
            let begin = self.open_quote::<INNER>(buffer, at)?;
            let end = self.string::<INNER>(buffer, begin)?;
            if let Some(field) = field
                && !field.equals.is_empty()
            {
                self.compare(field, &buffer[begin..end.end], end.escaped);
            }
            for &input in inputs {
                if self.plan.inputs[input].kind == InputKind::Text {
                    self.slots.push(input, Slot::text(self.place, begin, end.end, end.escaped, index));
                } else {
                    self.text_as_other(buffer, begin, end.end, input, index);
                }
            }
            return Ok(end.next);
        }
        if byte == b'-' || byte.is_ascii_digit() {
            let number = number::scan(buffer, at).map_err(|at| broken::<INNER>(Code::NotJson, at))?;
            for &input in inputs {
                self.number(buffer, number, input, index);
            }
            return Ok(number.end);
        }
        self.other_scalar::<INNER>(buffer, at, inputs, index, depth)
    }

    fn other_scalar<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        inputs: &[InputId],
        index: u32,
        depth: u32,
    ) -> Result<usize, Stop> {
        let (value, word): (u64, &[u8]) = match buffer.get(at) {
            Some(b't') => (1, b"true"),
            Some(b'f') => (0, b"false"),
            Some(b'n') => {
                return skip::literal(buffer, at, b"null").map_err(|(code, at)| broken::<INNER>(code, at));
            }
            _ => {
                let end = self.skip::<INNER>(buffer, at, depth)?;
                inputs.iter().for_each(|input| self.note(Code::WrongType, Spot::Input(*input)));
                return Ok(end);
            }
        };
        let end = skip::literal(buffer, at, word).map_err(|(code, at)| broken::<INNER>(code, at))?;
        for &input in inputs {
            match self.plan.inputs[input].kind {
                InputKind::Bool => self.slots.push(input, Slot { value, len: 0, index }),
                _ => self.note(Code::WrongType, Spot::Input(input)),
            }
        }
        Ok(end)
    }

    fn compare(&mut self, field: &Field, text: &[u8], escaped: bool) {
        let mut unescaped = Vec::new();
        if escaped {
            text::unescape(text, &mut unescaped);
        }
        let text = if escaped { &unescaped } else { text };
        for (value, bits) in &field.equals {
            if **value == *text {
                self.marks |= bits;
            }
        }
    }

    #[inline]
    fn number(&mut self, buffer: &[u8], number: Number, input: InputId, index: u32) {
        let value = match self.plan.inputs[input].kind {
            InputKind::Int => number.to_i64(buffer).map(i64::cast_unsigned),
            InputKind::Float => number.to_f64(buffer).map(f64::to_bits),
            _ => Err(Code::WrongType),
        };
        match value {
            Ok(value) => self.slots.push(input, Slot { value, len: 0, index }),
            Err(code) => self.note(code, Spot::Input(input)),
        }
    }

    /// A string where a number or boolean belongs: taken only where the definition says so.
    fn text_as_other(&mut self, buffer: &[u8], begin: usize, end: usize, input: InputId, index: u32) {
        let planned = &self.plan.inputs[input];
        if planned.accept_text {
            let mut text = Vec::with_capacity(end - begin + PADDING);
            text::unescape(&buffer[begin..end], &mut text);
            let length = text.len();
            match (planned.kind, text.as_slice()) {
                (InputKind::Bool, b"true") => return self.slots.push(input, Slot { value: 1, len: 0, index }),
                (InputKind::Bool, b"false") => return self.slots.push(input, Slot { value: 0, len: 0, index }),
                (InputKind::Int | InputKind::Float, _) => {
                    text.resize(length + PADDING, 0);
                    if let Ok(number) = number::scan(&text, 0)
                        && number.end == length
                    {
                        return self.number(&text, number, input, index);
                    }
                }
                _ => {}
            }
        }
        self.note(Code::WrongType, Spot::Input(input));
    }

    fn nested<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        action: &'w Action,
        spot: Spot,
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
                _ => self.wrong_type::<INNER>(buffer, at, spot, depth),
            },
            Action::Marked { node, otherwise } => {
                if byte == b'{' && !INNER {
                    self.object::<INNER>(buffer, at, *node, index, depth + 1)?;
                }
                match &**otherwise {
                    Action::Skip => self.skip::<INNER>(buffer, at, depth),
                    Action::Take(inputs) => self.scalar::<INNER>(buffer, at, inputs, None, index, depth),
                    action => self.nested::<INNER>(buffer, at, action, spot, index, depth),
                }
            }
            Action::List { shape, element } if byte == b'[' => {
                self.list::<INNER>(buffer, at, *shape, depth, |walk, buffer, at, index| {
                    walk.scalar::<INNER>(buffer, at, &[*element], None, index, depth + 1)
                })
            }
            Action::Objects { shape, node } if byte == b'[' => {
                self.list::<INNER>(buffer, at, *shape, depth, |walk, buffer, at, index| {
                    if buffer.get(at) == Some(&b'{') {
                        walk.object::<INNER>(buffer, at, *node, index, depth + 2)
                    } else {
                        walk.wrong_type::<INNER>(buffer, at, spot, depth + 1)
                    }
                })
            }
            _ => self.wrong_type::<INNER>(buffer, at, spot, depth),
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
        self.slots.push(input, Slot::text(self.place, at, end, false, index));
        Ok(end)
    }

    /// Stores an object's presence and its JSON text, where they are asked for.
    fn whole(&mut self, shape: Option<ShapeId>, json: Option<InputId>, at: usize, end: usize, index: u32) {
        if let Some(shape) = shape {
            self.slots.shapes[shape].push(ShapeSlot { record: index, first: 0, count: 1 });
        }
        if let Some(input) = json {
            self.slots.push(input, Slot::text(self.place, at, end, false, index));
        }
    }

    #[cold]
    fn wrong_type<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        spot: Spot,
        depth: u32,
    ) -> Result<usize, Stop> {
        self.note(Code::WrongType, spot);
        self.skip::<INNER>(buffer, at, depth)
    }

    /// An array; `element` scans one element and returns its end.
    #[inline]
    fn list<const INNER: bool>(
        &mut self,
        buffer: &[u8],
        at: usize,
        shape: ShapeId,
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
        self.slots.shapes[shape].push(ShapeSlot { record: self.slots.records, first, count });
        Ok(at)
    }

    /// A string that holds an object's JSON; `at` is its quote. An empty string is no object.
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
        let place = std::mem::replace(&mut self.place, Place::Scratch);
        let before = self.fault;
        let first = white_space(&scratch, begin);
        let walked = if scratch.get(first) == Some(&b'{') {
            self.object::<false>(&scratch, first, node, index, depth + 1)
        } else {
            Err(Stop::Broken(Code::BadEmbeddedJson, first))
        };
        match walked {
            Ok(after) if white_space(&scratch, after) == inner_end => self.whole(shape, json, first, after, index),
            _ => {
                // What was found inside is found in no document.
                self.fault = before;
                self.note(Code::BadEmbeddedJson, spot);
            }
        }
        self.place = place;
        self.slots.scratch = scratch;
        Ok(end.next)
    }
}

/// The first byte at or after `at` that is no white space. Inside an escaped document only a space stands for itself: a
/// line end or tab there would be one in the string around it, which JSON does not allow.
#[inline]
fn gap<const INNER: bool>(buffer: &[u8], mut at: usize) -> usize {
    if !INNER {
        return white_space(buffer, at);
    }
    while buffer.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// From the end of a key to the begin of its value.
#[inline]
fn colon<const INNER: bool>(buffer: &[u8], at: usize) -> Result<usize, Stop> {
    if !INNER {
        return Ok(skip::colon(buffer, at)?);
    }
    let at = gap::<INNER>(buffer, at);
    if buffer.get(at) == Some(&b':') { Ok(gap::<INNER>(buffer, at + 1)) } else { Err(Stop::Unescape) }
}

/// A fault of syntax inside an escaped document may be one of escaping: it is looked at again, unescaped.
#[cold]
fn broken<const INNER: bool>(code: Code, at: usize) -> Stop {
    if INNER { Stop::Unescape } else { Stop::Broken(code, at) }
}

fn allows(allow: &AllowList, key: &[u8], escaped: bool) -> bool {
    if !escaped {
        return allow.allows(key);
    }
    let mut text = Vec::with_capacity(key.len());
    text::unescape(key, &mut text);
    allow.allows(&text)
}

/// A text as it reads, unescaped if it must be. The buffer is the one that its slot lies in.
fn plain_text(buffer: &[u8], slot: Slot) -> Cow<'_, [u8]> {
    let bytes = slot.bytes(buffer, buffer);
    if !slot.is_escaped() {
        return Cow::Borrowed(bytes);
    }
    let mut text = Vec::with_capacity(bytes.len());
    text::unescape(bytes, &mut text);
    Cow::Owned(text)
}

/// Which fields of an object have been seen.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// `false` if it had been seen before.
    #[inline]
    fn insert(&mut self, field: usize) -> bool {
        let word = &mut self.0[field >> 6 & 3];
        let bit = 1 << (field & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}
