//! Embeds texts with any model directory and prints the cosine similarity of each to the first:
//! `cargo run --release -p bert-model --example embed -- DIR "a short text" "a longer text than the first" …`

use bert_model::Result;
use bert_model::pipeline::TextEmbedder;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "runs/pretrain".into());
    let texts: Vec<String> = arguments.collect();
    let embedder = TextEmbedder::builder().normalize(true).open(directory)?;
    let vectors = embedder.embed(&texts)?;
    for (text, vector) in texts.iter().zip(&vectors) {
        let cosine: f32 = vectors[0].iter().zip(vector).map(|(a, b)| a * b).sum();
        println!("{cosine:.3} {text}");
    }
    Ok(())
}
