//! The workflows that are run, and what their steps say.

use fastrand::Rng;
use serde_json::{Value, json};

/// Makes up a part of a payload.
pub(super) type Make = fn(&mut Rng) -> Value;

/// A workflow as an author would draw it.
pub(super) struct Workflow {
    pub(super) name: &'static str,
    pub(super) version: i32,
    pub(super) trigger: &'static str,
    pub(super) input: Make,
    pub(super) steps: &'static [Step],
}

/// A node of it.
pub(super) struct Step {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether it is skipped when the branch before it is not taken.
    pub(super) optional: bool,
    /// A log line on beginning: its message, and what makes its fields.
    pub(super) request: Option<(&'static str, Make)>,
    pub(super) output: Make,
    /// Message and code of what may go wrong, where something may.
    pub(super) error: Option<(&'static str, &'static str)>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Http,
    Transform,
    Delay,
    Branch,
    Email,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Transform => "transform",
            Self::Delay => "delay",
            Self::Branch => "branch",
            Self::Email => "email",
        }
    }
}

/// All of them.
pub(super) const WORKFLOWS: &[Workflow] =
    &[ORDER_FULFILMENT, INVOICE_SYNC, LEAD_ENRICHMENT, NIGHTLY_REPORT, TICKET_TRIAGE];

const ORDER_FULFILMENT: Workflow = Workflow {
    name: "order-fulfilment",
    version: 12,
    trigger: "webhook",
    input: |rng| {
        json!({
            "order_id": number(rng, "ord"),
            "customer": { "name": person(rng), "email": email(rng), "password": token(rng) },
            "items": (0..rng.usize(1..5)).map(|_| item(rng)).collect::<Vec<_>>(),
            "currency": "EUR",
        })
    },
    steps: &[
        transform(
            "validate",
            "Validate the order",
            |rng| json!({ "valid": true, "total_cents": rng.u32(900..90_000) }),
        ),
        http(
            "reserve_stock",
            "Reserve stock",
            ("POST /v2/reservations", |rng| request(rng, "warehouse.example")),
            |rng| json!({ "reservation": number(rng, "rsv"), "warehouse": rng.u8(1..9) }),
            ("warehouse answered 503 Service Unavailable", "http_503"),
        ),
        http(
            "charge_card",
            "Charge the card",
            ("POST /v1/charges", |rng| request(rng, "payments.example")),
            |rng| json!({ "charge": number(rng, "ch"), "card": { "brand": "visa", "token": token(rng) } }),
            ("card was declined: insufficient funds", "card_declined"),
        ),
        branch("is_express", "Express delivery?", |rng| json!({ "taken": rng.bool() })),
        Step { optional: true, ..email_step("notify_warehouse", "Tell the express desk") },
        http(
            "book_carrier",
            "Book the carrier",
            ("PUT /shipments", |rng| request(rng, "carrier.example")),
            |rng| json!({ "tracking": number(rng, "trk"), "weight_g": rng.u32(80..30_000) }),
            ("carrier closed the connection before answering", "connection_reset"),
        ),
        email_step("confirm", "Confirm to the customer"),
    ],
};

const INVOICE_SYNC: Workflow = Workflow {
    name: "invoice-sync",
    version: 4,
    trigger: "event",
    input: |rng| json!({ "invoice_id": number(rng, "inv"), "amount_cents": rng.u32(100..500_000) }),
    steps: &[
        http(
            "fetch_invoice",
            "Fetch the invoice",
            ("GET /invoices", |rng| request(rng, "billing.example")),
            |rng| json!({ "lines": rng.u8(1..30), "vat_rate": 0.19, "paid": rng.bool() }),
            ("billing answered 429 Too Many Requests", "http_429"),
        ),
        transform(
            "map_accounts",
            "Map to accounts",
            |rng| json!({ "debit": rng.u16(1000..2000), "credit": rng.u16(4000..5000) }),
        ),
        branch("is_foreign", "Foreign currency?", |rng| json!({ "taken": rng.bool() })),
        Step {
            optional: true,
            ..transform(
                "convert",
                "Convert the currency",
                |rng| json!({ "rate": f64::from(rng.u32(8_000..12_000)) / 10_000.0, "source": "ecb" }),
            )
        },
        http(
            "post_booking",
            "Post to the ledger",
            ("POST /bookings", |rng| request(rng, "ledger.example")),
            |rng| json!({ "booking": number(rng, "bkg"), "period": "open" }),
            ("ledger period is closed", "period_closed"),
        ),
    ],
};

const LEAD_ENRICHMENT: Workflow = Workflow {
    name: "lead-enrichment",
    version: 7,
    trigger: "form",
    input: |rng| json!({ "name": person(rng), "email": email(rng), "source": "pricing page" }),
    steps: &[
        transform("normalise", "Normalise the name", |rng| json!({ "name": person(rng) })),
        http(
            "look_up_company",
            "Look up the company",
            ("GET /companies/find", |rng| request(rng, "directory.example")),
            |rng| json!({ "company": company(rng), "employees": rng.u32(1..20_000), "country": "NL" }),
            ("no answer within 10 s", "timeout"),
        ),
        transform(
            "score",
            "Score the lead",
            |rng| json!({ "score": rng.u8(..100), "model": "v3" }),
        ),
        branch("is_hot", "Score above 60?", |rng| json!({ "taken": rng.bool() })),
        Step { optional: true, ..email_step("alert_sales", "Alert the sales desk") },
        http(
            "save_contact",
            "Save to the CRM",
            ("POST /contacts", |rng| request(rng, "crm.example")),
            |rng| json!({ "contact": number(rng, "cnt"), "created": rng.bool() }),
            ("contact already exists", "conflict"),
        ),
    ],
};

const NIGHTLY_REPORT: Workflow = Workflow {
    name: "nightly-report",
    version: 2,
    trigger: "schedule",
    input: |rng| json!({ "report": "revenue", "days": rng.u8(1..32), "format": "csv" }),
    steps: &[
        delay("wait_for_close", "Wait for the day to close"),
        http(
            "query",
            "Query the warehouse",
            ("POST /query", |rng| request(rng, "analytics.example")),
            |rng| json!({ "rows": rng.u32(..200_000), "scanned_bytes": rng.u64(1_000_000..9_000_000_000) }),
            ("query ran out of memory", "resources_exceeded"),
        ),
        transform(
            "render",
            "Render the sheet",
            |rng| json!({ "bytes": rng.u32(2_000..4_000_000) }),
        ),
        email_step("send", "Send to the subscribers"),
    ],
};

const TICKET_TRIAGE: Workflow = Workflow {
    name: "ticket-triage",
    version: 1,
    trigger: "webhook",
    input: |rng| json!({ "ticket": number(rng, "tkt"), "from": email(rng), "subject": "Where is my parcel? 📦" }),
    steps: &[
        http(
            "classify",
            "Classify the ticket",
            ("POST /classify", |rng| request(rng, "models.example")),
            |rng| json!({ "label": "delivery", "confidence": f64::from(rng.u8(50..100)) / 100.0 }),
            ("model is overloaded", "http_529"),
        ),
        delay("debounce", "Wait for a second mail"),
        email_step("answer", "Send the first answer"),
    ],
};

const fn http(
    id: &'static str,
    name: &'static str,
    request: (&'static str, Make),
    output: Make,
    error: (&'static str, &'static str),
) -> Step {
    let (request, error) = (Some(request), Some(error));
    Step { id, name, kind: Kind::Http, optional: false, request, output, error }
}

const fn transform(id: &'static str, name: &'static str, output: Make) -> Step {
    let kind = Kind::Transform;
    Step { id, name, kind, optional: false, request: None, output, error: None }
}

const fn branch(id: &'static str, name: &'static str, output: Make) -> Step {
    Step { kind: Kind::Branch, ..transform(id, name, output) }
}

const fn delay(id: &'static str, name: &'static str) -> Step {
    Step { kind: Kind::Delay, ..transform(id, name, |_| json!({ "woken_by": "timer" })) }
}

const fn email_step(id: &'static str, name: &'static str) -> Step {
    let output: Make = |rng| json!({ "message_id": token(rng), "to": email(rng) });
    let request: (&str, Make) =
        ("sending mail", |rng| json!({ "to": email(rng), "smtp_password": token(rng) }));
    let error = Some(("mailbox is full", "smtp_452"));
    let request = Some(request);
    Step { id, name, kind: Kind::Email, optional: false, request, output, error }
}

/// The fields a careless author logs with a request.
fn request(rng: &mut Rng, host: &str) -> Value {
    json!({
        "host": host,
        "request_id": token(rng),
        "duration_ms": rng.u32(8..2_400),
        "headers": {
            "authorization": format!("Bearer {}", token(rng)),
            "content-type": "application/json",
        },
    })
}

fn item(rng: &mut Rng) -> Value {
    let goods = ["Espresso cups", "Desk lamp", "Wool blanket", "Notebook, dotted", "Bike bell"];
    json!({ "sku": number(rng, "sku"), "title": pick(rng, &goods), "quantity": rng.u8(1..6) })
}

fn person(rng: &mut Rng) -> String {
    let first = ["Ada", "Grace", "Edsger", "Barbara", "Tony", "Frances", "Zoë", "Jürgen"];
    let last = ["Moreau", "Okafor", "Lindqvist", "Tanaka", "O'Neill", "Nowak", "Şahin"];
    format!("{} {}", pick(rng, &first), pick(rng, &last))
}

fn email(rng: &mut Rng) -> String {
    let boxes = ["ada", "grace", "edsger", "barbara", "tony", "frances"];
    format!("{}.{}@mail.example", pick(rng, &boxes), rng.u16(10..999))
}

fn company(rng: &mut Rng) -> &'static str {
    pick(rng, &["Polder Robotics", "Nordlicht Energie", "Atelier Vasseur", "Kite & Sons"])
}

/// `ord_48213`
fn number(rng: &mut Rng, prefix: &str) -> String {
    format!("{prefix}_{}", rng.u32(10_000..100_000))
}

fn token(rng: &mut Rng) -> String {
    format!("{:016x}{:016x}", rng.u64(..), rng.u64(..))
}

fn pick(rng: &mut Rng, words: &[&'static str]) -> &'static str {
    rng.choice(words).copied().expect("the words are not empty")
}
