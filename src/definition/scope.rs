//! One event as expressions see it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jmespath::{Rcvar, Variable};

use super::datum::Datum;
use super::expr::EvalError;
use super::json::{self, Member, Walk};
use super::{time, tree};
use crate::event::Event;
use crate::redact::Redactor;

/// Memory that one event after the other uses.
#[derive(Default)]
pub struct Scratch {
    payload: RefCell<PayloadIndex>,
    tree: RefCell<Option<Rcvar>>,
}

/// Where the members of the payload's top level lie.
#[derive(Default)]
struct PayloadIndex {
    is_built: bool,
    members: Vec<Member>,
}

/// One event in evaluation: made once an event and shared by all projections of a lane. Its payload
/// is walked at most once; the tree for general expressions is built at most once.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    event: Event<'a>,
    scratch: &'a Scratch,
    redactor: &'a Redactor,
    item: Option<Item<'a>>,
}

#[derive(Clone, Copy)]
struct Item<'a> {
    json: &'a str,
    index: i64,
}

impl<'a> Scope<'a> {
    /// `scratch` may have served another event before.
    pub fn new(event: Event<'a>, scratch: &'a mut Scratch, redactor: &'a Redactor) -> Self {
        let index = scratch.payload.get_mut();
        index.is_built = false;
        index.members.clear();
        *scratch.tree.get_mut() = None;
        Self { event, scratch, redactor, item: None }
    }

    /// The event.
    pub fn event(&self) -> &Event<'a> {
        &self.event
    }

    /// The same event with `item` and `index` in scope; `item` is JSON text.
    pub fn with_item<'b>(&self, item: &'b str, index: usize) -> Scope<'b>
    where
        'a: 'b,
    {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        Scope { item: Some(Item { json: item, index }), ..*self }
    }

    /// The same event with another payload; `scratch` may have served another event before.
    pub fn with_payload<'b>(&self, payload: &'b str, scratch: &'b mut Scratch) -> Scope<'b>
    where
        'a: 'b,
    {
        Scope::new(Event { payload, ..self.event }, scratch, self.redactor)
    }

    /// What `redact()` hides.
    pub fn redactor(&self) -> &'a Redactor {
        self.redactor
    }

    /// The element of `foreach`; `None` outside of one.
    pub(super) fn item(&self) -> Option<&'a str> {
        self.item.map(|it| it.json)
    }

    /// The place of the element, from 0.
    pub(super) fn index(&self) -> Option<i64> {
        self.item.map(|it| it.index)
    }

    /// The JSON text of a member of the payload.
    pub(super) fn payload_member(&self, key: &str) -> Option<&'a str> {
        let payload = self.event.payload;
        let mut index = self.scratch.payload.borrow_mut();
        if !index.is_built {
            index.is_built = true;
            index.members.extend(Walk::object(payload).into_iter().flatten());
        }
        let mut last_first = index.members.iter().rev();
        let member = last_first.find(|it| json::is_key(payload, it.key.clone(), key))?;
        payload.get(member.value.clone())
    }

    /// The envelope as a tree.
    pub(super) fn tree(&self) -> Result<Rcvar, EvalError> {
        let mut cached = self.scratch.tree.borrow_mut();
        let root = match &*cached {
            Some(it) => Arc::clone(it),
            None => {
                let it = Rcvar::new(Variable::Object(self.members()?));
                *cached = Some(Arc::clone(&it));
                it
            }
        };
        let (Some(item), Some(members)) = (self.item, root.as_object()) else { return Ok(root) };
        let mut members = members.clone();
        members.insert("item".to_owned(), Rcvar::new(tree::build(item.json)?));
        members.insert("index".to_owned(), Rcvar::new(Variable::Number(item.index.into())));
        Ok(Rcvar::new(Variable::Object(members)))
    }

    fn members(&self) -> Result<BTreeMap<String, Rcvar>, EvalError> {
        let event = &self.event;
        let text = |it: String| Variable::String(it);
        let members = [
            ("position", Variable::Number(event.position.into())),
            ("project_id", text(event.project_id.to_string())),
            ("run_id", text(event.run_id.to_string())),
            ("version", Variable::Number(event.version.into())),
            ("event_id", text(event.event_id.to_string())),
            ("type", text(event.kind.to_owned())),
            ("payload", tree::build(event.payload)?),
            ("metadata", tree::build(event.metadata)?),
            ("recorded_at", text(time::text(event.recorded_at))),
        ];
        Ok(members.map(|(name, value)| (name.to_owned(), Rcvar::new(value))).into())
    }
}

/// What a `foreach` goes over.
#[derive(Debug)]
pub struct Items<'a>(Cow<'a, str>);

impl<'a> Items<'a> {
    /// Null is an empty array.
    ///
    /// # Errors
    /// When `datum` is neither an array nor null.
    pub fn new(datum: Datum<'a>, redactor: &Redactor) -> Result<Self, EvalError> {
        match datum {
            Datum::Null => Ok(Self(Cow::Borrowed("[]"))),
            Datum::Json(json) if json.trim_start().starts_with('[') => Ok(Self(json)),
            other => {
                let found = other.redacted(redactor);
                Err(EvalError::new(format!("`foreach` needs an array, found {found}")))
            }
        }
    }

    /// The elements as JSON text, for [`Scope::with_item`].
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        json::elements(&self.0).into_iter().flatten()
    }
}
