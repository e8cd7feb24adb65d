//! Classifies texts with any model directory that has a classification head, from Hugging Face or from `bert-finetune`:
//! `cargo run --release -p bert-model --example classify -- DIR "a charming film" …`

use bert_model::text::{Sequence, collate};
use bert_model::{BertForSequenceClassification, Result, Tokenizer, device, load};
use burn::tensor::activation::softmax;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "runs/finetune".into());
    let device = device::select("auto")?.device;
    let loaded = load::<BertForSequenceClassification>(&directory, 42, &device)?;
    if let Some(warning) = loaded.warning() {
        eprintln!("warning: {directory}: {warning}");
    }
    let tokenizer = Tokenizer::load(&directory)?.truncating(loaded.config.max_position_embeddings)?;
    let labels = loaded.config.labels()?.unwrap_or_default();
    for text in arguments {
        let sequence = Sequence::from(&tokenizer.encode(&text, None)?);
        let scores = loaded.model.forward(collate(&[&sequence], tokenizer.special().pad, &device));
        let probabilities: Vec<f32> = softmax(scores, 1).into_data().iter::<f32>().collect();
        let best = (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
        let best = best.unwrap_or_default();
        let label = labels.get(best).cloned().unwrap_or_else(|| best.to_string());
        println!("{label} {:.3} {text}", probabilities[best]);
    }
    Ok(())
}
