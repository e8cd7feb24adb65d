//! The page in a real browser: headless Chromium, controlled through its DevTools protocol.

mod chromium;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::models::models;
use crate::page::chromium::Chromium;
use crate::server::Server;

/// Waits until the expression is true.
fn until(page: &mut Chromium, expression: &str) {
    let started = Instant::now();
    while page.evaluate(expression) != Value::Bool(true) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "never: {expression}\n{}",
            page.evaluate("document.body.innerText")
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Selects a tab, fills in the form, and submits it; the answer must then satisfy `expected`.
fn ask(page: &mut Chromium, tab: &str, fields: &[(&str, &str)], expected: &str) {
    until(page, &format!("document.getElementById('tab-{tab}') !== null"));
    page.evaluate(&format!("document.getElementById('tab-{tab}').click()"));
    for (name, value) in fields {
        page.evaluate(&format!("document.querySelector('[name={name}]').value = {}", Value::from(*value)));
    }
    page.evaluate("document.getElementById('ask').click()");
    until(page, &format!("document.getElementById('time').textContent.startsWith('/{tab}') && ({expected})"));
    assert_eq!(page.evaluate("document.getElementById('error').hidden"), true, "{tab}");
}

#[test]
#[ignore = "starts a browser"]
fn the_page_asks_shows_and_tells_errors() {
    let Some(mut page) = Chromium::start() else { return };
    let directory = models();
    let server = Server::start(
        directory.path(),
        "--model labels --model ranker --model tags --model answers --model masks --model choices --model encoder",
    );
    page.open(&format!("http://{}/", server.address));
    until(&mut page, "document.querySelectorAll('#model option').length === 7");
    let choose = |page: &mut Chromium, model: &str| {
        page.evaluate(&format!(
            "(() => {{ const s = document.getElementById('model'); s.value = '{model}'; s.dispatchEvent(new Event('change')); }})()"
        ));
    };
    let bars = |count: usize| format!("document.querySelectorAll('#answer .bar').length === {count}");
    ask(&mut page, "predict", &[("text", "word7 <b>")], &bars(3));
    let curl = page.evaluate("document.getElementById('curl').textContent");
    assert!(curl.as_str().unwrap().contains(r#"-d '{"inputs":"word7 <b>","model":"labels"}'"#), "{curl}");
    let python = page.evaluate("document.getElementById('python').textContent");
    assert!(python.as_str().unwrap().contains(r#"json={"inputs": "word7 <b>", "model": "labels"}"#), "{python}");
    choose(&mut page, "ranker");
    ask(
        &mut page,
        "rerank",
        &[("query", "word5"), ("texts", "word6\nword7 word8")],
        "document.querySelectorAll('#answer li').length === 2",
    );
    choose(&mut page, "tags");
    ask(
        &mut page,
        "tag",
        &[("text", "word5 word6")],
        "document.getElementById('answer').textContent.includes('word5/LABEL')",
    );
    choose(&mut page, "answers");
    ask(
        &mut page,
        "answer",
        &[("question", "word5"), ("context", "word6 word7")],
        "document.querySelectorAll('#answer mark').length === 1",
    );
    choose(&mut page, "masks");
    ask(&mut page, "fill-mask", &[("text", "word5 [MASK]")], &bars(5));
    choose(&mut page, "choices");
    ask(
        &mut page,
        "choose",
        &[("text", "word5"), ("choices", "word6\nword7")],
        "document.getElementById('answer').textContent.includes('✓')",
    );
    choose(&mut page, "encoder");
    ask(
        &mut page,
        "embed",
        &[("texts", "word5\nword6\nword7")],
        "document.querySelectorAll('#answer tbody td').length === 9",
    );
    ask(
        &mut page,
        "tokenize",
        &[("text", "word5")],
        "document.getElementById('answer').textContent.includes('3 tokens')",
    );

    // An error is shown, and disappears with the next answer.
    page.evaluate("document.getElementById('tab-embed').click()");
    page.evaluate("document.querySelector('[name=texts]').value = ''");
    page.evaluate("document.getElementById('ask').click()");
    until(
        &mut page,
        "!document.getElementById('error').hidden && document.getElementById('error').textContent.includes('found an empty list')",
    );
    ask(&mut page, "embed", &[("texts", "word5")], "document.querySelectorAll('#answer tbody td').length === 1");

    // Nothing is wider than the window, even on a phone; arrow keys move between tabs.
    for width in [400, 1280] {
        page.resize(width, 900);
        assert_eq!(
            page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"),
            true,
            "at {width} pixels"
        );
    }
    page.evaluate("document.getElementById('tab-embed').focus()");
    page.press("ArrowRight");
    until(
        &mut page,
        "document.activeElement.id === 'tab-tokenize' && document.activeElement.getAttribute('aria-selected') === 'true'",
    );
    assert!(page.errors().is_empty(), "{:?}", page.errors());
}
