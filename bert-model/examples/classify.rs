//! Classifies texts with any model directory that has a classification head, from Hugging Face or from `bert-finetune`:
//! `cargo run --release -p bert-model --example classify -- DIR "a charming film" …`

use bert_model::Result;
use bert_model::pipeline::TextClassifier;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let classifier = TextClassifier::open(arguments.next().unwrap_or_else(|| "runs/finetune".into()))?;
    let texts: Vec<String> = arguments.collect();
    for (text, answer) in texts.iter().zip(classifier.classify(&texts)?) {
        println!("{} {:.3} {text}", answer.label, answer.score);
    }
    Ok(())
}
