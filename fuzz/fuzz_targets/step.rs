//! Fuzzes the shape of a small model: a training step, in f32 or bf16, and forward passes with plain and packed weights,
//! under the address sanitizer. The operations in `ops` must be sound for all sizes, whether or not they are multiples of
//! a vector's length.
#![no_main]

use bert_model::{Activation, BertConfig, BertForPreTraining, Error, Pretrained, Workers, device, pipeline};
use bert_pretrain::batch::PretrainingBatch;
use bert_pretrain::examples::PretrainingExample;
use bert_pretrain::masking::MaskedToken;
use bert_pretrain::objective::Pretraining;
use bert_pretrain::stream::MicroBatch;
use bert_train::{Algorithm, Optimizer, OptimizerConfig, Plan, Precision, Solo, TrainingState, take_step};
use burn::module::Module;
use libfuzzer_sys::fuzz_target;

const ACTIVATIONS: [Activation; 5] =
    [Activation::Gelu, Activation::GeluNew, Activation::Relu, Activation::Silu, Activation::Tanh];

fuzz_target!(|shape: [u8; 12]| {
    let [heads, width, layers, inner, vocab, batch, length, activation, dropout, flags, short, word] =
        shape.map(usize::from);
    let heads = 1 + heads % 5;
    let config = BertConfig {
        vocab_size: 8 + vocab % 120,
        hidden_size: heads * (1 + width % 40),
        num_hidden_layers: 1 + layers % 2,
        num_attention_heads: heads,
        intermediate_size: 1 + inner % 100,
        hidden_act: ACTIVATIONS[activation % ACTIVATIONS.len()],
        hidden_dropout_prob: [0.0, 0.1, 0.9][dropout % 3],
        attention_probs_dropout_prob: [0.0, 0.1, 0.9][dropout / 3 % 3],
        max_position_embeddings: 64,
        ..BertConfig::default()
    };
    let example = |row: usize| {
        let length = 2 + (length % 60).saturating_sub(row * (short % 8));
        let id = |token: usize| ((word + 31 * token + 7 * row) % config.vocab_size) as u32;
        PretrainingExample {
            ids: (0..length).map(id).collect(),
            first_segment: length / 2,
            is_random_next: row % 2 == 1,
            masked: vec![MaskedToken { position: length - 1, id: id(row) }],
        }
    };
    let examples: Vec<PretrainingExample> = (0..1 + batch % 6).map(example).collect();
    let device = device::select("flex").expect("flex").device;
    let model = BertForPreTraining::init_seeded(&config, 1, &device).train();
    let algorithm = [Algorithm::AdamW, Algorithm::Lamb, Algorithm::Muon][flags / 4 % 3];
    let state = TrainingState::new(model, Optimizer::new(OptimizerConfig { algorithm, ..OptimizerConfig::default() }));
    let precision = if flags & 16 != 0 { Precision::Bf16 } else { Precision::F32 };
    let plan = Plan { gradient_checkpointing: flags & 2 != 0, precision, ..Plan::constant(1e-3, 1) };
    let workers = Workers::for_device(&device).expect("threads");
    let task = Pretraining::new(device.clone(), 0, 4);
    let batches = MicroBatch::split_step(examples.clone(), 4, 0);
    let taken = take_step(state, &task, batches, &plan, &workers, &Solo);
    let (state, step) = match taken.and_then(|(state, step)| Ok((state, step.wait()?))) {
        // If dropout zeroes a whole row, layer normalization divides by √ε, once per layer, so that the true gradient
        // may exceed single precision. The step must then fail with this error.
        Err(Error::NotFinite { .. }) if dropout % 9 > 0 => return,
        outcome => outcome.expect("finite numbers"),
    };
    assert!(step.norm > 0.0);
    for packed in
        [None, Some(pipeline::Precision::F32), Some(pipeline::Precision::Bf16), Some(pipeline::Precision::Int8)]
    {
        let mut model = state.model.valid();
        packed.into_iter().for_each(|precision| model.bert.encoder.pack(precision));
        let batch = PretrainingBatch::new(&examples, 0, 0, &device);
        let (words, _) = model.forward(batch.input, batch.positions);
        assert!(words.into_data().iter::<f32>().all(f32::is_finite), "{packed:?}");
    }
});
