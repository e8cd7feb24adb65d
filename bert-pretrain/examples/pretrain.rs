//! Pretrains from Rust, from text to a model directory: `cargo run --release -p bert-pretrain --example pretrain`

use bert_model::text::tokenizer::Normalization;
use bert_model::{BertConfig, BertForPreTraining, Pretrained, Result, Tokenizer, Workers, device, save};
use bert_pretrain::corpus::{Corpus, SentenceMode};
use bert_pretrain::examples::{ExampleMaker, NspMode};
use bert_pretrain::masking::Masking;
use bert_pretrain::objective::Pretraining;
use bert_pretrain::split::{Split, Subset};
use bert_pretrain::store::Store;
use bert_pretrain::stream::{Cursor, ExampleStream, TrainingSource};
use bert_pretrain::{sample, vocabulary};
use bert_train::{Optimizer, OptimizerConfig, Plan, Solo, StepSource, TrainingState, take_step};
use burn::module::Module;

fn main() -> Result<()> {
    let directory = std::env::args().nth(1).map_or("runs/example".into(), std::path::PathBuf::from);
    std::fs::create_dir_all(&directory).map_err(bert_model::Error::io(&directory, "create the directory"))?;
    let text = directory.join("text.txt");
    bert_model::file::replace_file(&text, sample::corpus(400, 42).as_bytes())?;

    // Text to WordPieces.
    let corpus = Corpus::open(&[&text])?;
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary::learn(&corpus, 1000, false)?, Normalization::new(true))?;
    let tokens = directory.join("text.tokens");
    let store = Store::build(&tokens, &corpus, &tokenizer, SentenceMode::Unicode, "example")?;

    // WordPieces to examples: two segments, 15 % of the tokens masked.
    let vocab_size = tokenizer.vocabulary().len();
    let special = tokenizer.special();
    let masking = Masking {
        probability: 0.15,
        max_predictions: 10,
        continuations: vec![],
        special,
        mask: tokenizer.mask()?,
        vocab_size: vocab_size as u32,
    };
    let maker = ExampleMaker { max_length: 64, short_probability: 0.1, nsp: NspMode::Balanced, masking };
    let split = Split::new(store.stats().documents, 0.0, 42);
    let stream = ExampleStream::new(store.reader()?, split, Subset::Training, maker, 42, None, Cursor::default())?;
    let mut source = TrainingSource { stream, batch_size: 16, accumulate: 1, position_blocks: 1 };

    // Examples to a model.
    let device = device::select("auto")?.device;
    let config = BertConfig::named("tiny").unwrap_or_default().with_vocab_size(vocab_size);
    let model = BertForPreTraining::init_seeded(&config, 42, &device).train();
    let optimizer = Optimizer::new(OptimizerConfig::default());
    let mut state = TrainingState::new(model, optimizer);
    let task = Pretraining::new(device.clone(), special.pad, 16);
    let (plan, workers) = (Plan::constant(1e-3, 200), Workers::for_device(&device)?);
    while state.step < plan.schedule.steps
        && let Some(batches) = source.next_step()?
    {
        let step;
        (state, step) = take_step(state, &task, batches.batches, &plan, &workers, &Solo)?;
        println!("step {} {}", state.step, serde_json::Value::Object(step.wait()?.losses));
    }
    save(&directory, &state.model.valid(), &config, &tokenizer)
}
