//! Arbitrary bytes as a request body, for a server with a model of every head: the response must be an answer or a 4xx
//! error.
#![no_main]

mod place;

use std::path::Path;
use std::sync::OnceLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use bert_serve::app::router;
use bert_serve::args::Args;
use bert_serve::serve::open;
use clap::Parser;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use libfuzzer_sys::fuzz_target;
use place::{folder, golden};
use tokio::runtime::{Builder, Runtime};

/// The routes, each with the golden head that supports it.
const ROUTES: [(&str, &str); 9] = [
    ("/v1/embeddings", "BertForMaskedLM"),
    ("/embed", "BertForMaskedLM"),
    ("/similarity", "BertForMaskedLM"),
    ("/predict", "BertForSequenceClassification"),
    ("/rerank", "BertForSequenceClassification-regression"),
    ("/tag", "BertForTokenClassification"),
    ("/answer", "BertForQuestionAnswering"),
    ("/fill-mask", "BertForMaskedLM"),
    ("/choose", "BertForMultipleChoice"),
];

fn setup(folder: &Path) {
    let words = (5..67).map(|id| format!("word{id}")).collect::<Vec<_>>().join("\n");
    let heads = golden("models/gelu-odd/heads");
    for (_, head) in ROUTES {
        let at = folder.join(head);
        std::fs::create_dir_all(&at).expect("a directory");
        std::fs::copy(heads.join(format!("{head}.config.json")), at.join("config.json")).expect("a copy");
        std::fs::copy(heads.join(format!("{head}.safetensors")), at.join("model.safetensors")).expect("a copy");
        std::fs::write(at.join("vocab.txt"), format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{words}\n")).expect("written");
    }
}

fn server() -> &'static (Runtime, Router) {
    static SERVER: OnceLock<(Runtime, Router)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = folder(setup);
        let mut heads: Vec<&str> = ROUTES.iter().map(|(_, head)| *head).collect();
        heads.sort_unstable();
        heads.dedup();
        let models = heads.iter().flat_map(|head| ["--model".into(), folder.join(head).into_os_string()]);
        let args = Args::parse_from(["bert-serve".into(), "--device".into(), "flex".into()].into_iter().chain(models));
        let app = open(&args).expect("models");
        (Builder::new_current_thread().enable_all().build().expect("a runtime"), router(app))
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let (route, _) = ROUTES[usize::from(*which) % ROUTES.len()];
    let (runtime, router) = server();
    let request = Request::post(route).body(Body::from(bytes.to_vec())).expect("a request");
    runtime.block_on(async {
        let response = TowerToHyperService::new(router.clone()).call(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        assert!(status == 200 || (400..500).contains(&status), "{status}: {}", String::from_utf8_lossy(&body));
        assert!(status == 200 || body.starts_with(b"{\"error\":"), "{status}: {}", String::from_utf8_lossy(&body));
    });
});
