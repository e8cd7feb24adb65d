//! The text processing for training: embeds the texts of a pair like [`bert_model::pipeline::TextEmbedder`].

use bert_model::model::{BertInput, BertModel, SentenceEncoder};
use bert_model::pipeline::{EmbeddingProcessor, EmbeddingRequest, HeadProcessor, PooledTokens, Processor};
use bert_model::pretrained::Loaded;
use bert_model::pretrained::weights::Weights;
use bert_model::text::Sequence;
use bert_model::{BertConfig, Result, Tokenizer};
use burn::tensor::{Device, Tensor};

/// Embeds the texts of an example.
#[derive(Debug, Clone)]
pub struct GroupProcessor(pub Box<EmbeddingProcessor>);

/// The texts of an example, tokenized.
#[derive(Debug, Clone)]
pub struct TextGroup {
    sequences: Vec<Sequence>,
    pooled: Vec<PooledTokens>,
}

impl GroupProcessor {
    /// Computes the vectors of the texts of all `inputs`, in order, from their hidden states.
    ///
    /// # Shapes
    /// - `hidden`: `[S, T, H]`
    /// - output: `[S, W]`
    pub fn vectors(&self, model: &SentenceEncoder, hidden: Tensor<3>, inputs: &[&TextGroup]) -> Tensor<2> {
        let pooled: Vec<PooledTokens> = inputs.iter().flat_map(|input| input.pooled.iter().copied()).collect();
        self.0.sentence_vectors(model, hidden, &pooled)
    }
}

impl Processor for GroupProcessor {
    type Model = SentenceEncoder;
    type Request<'a> = &'a [String];
    type Input = TextGroup;
    /// The vector of each text.
    type Output = Vec<Vec<f32>>;
    type Answer = Vec<Vec<f32>>;

    fn tokenizer(&self) -> &Tokenizer {
        self.0.tokenizer()
    }

    fn load(&self, weights: &Weights, config: BertConfig, device: &Device) -> Result<Loaded<SentenceEncoder>> {
        self.0.load(weights, config, device)
    }

    fn preprocess(&self, texts: &&[String]) -> Result<Vec<TextGroup>> {
        let mut group = TextGroup { sequences: Vec::new(), pooled: Vec::new() };
        for text in *texts {
            for input in self.0.preprocess(&EmbeddingRequest::text(text))? {
                group.pooled.push(input.pooled_tokens());
                group.sequences.push(input.sequence().clone());
            }
        }
        Ok(vec![group])
    }

    fn sequences(input: &TextGroup) -> &[Sequence] {
        &input.sequences
    }

    fn forward(&self, model: &SentenceEncoder, batch: BertInput, inputs: &[&TextGroup]) -> Vec<Vec<Vec<f32>>> {
        self.head(model, model.bert.encode(batch), inputs)
    }

    fn postprocess(&self, _request: &&[String], _: &[TextGroup], outputs: &[Vec<Vec<f32>>]) -> Vec<Vec<f32>> {
        outputs.first().cloned().unwrap_or_default()
    }
}

impl HeadProcessor for GroupProcessor {
    const READS_CLS_ONLY: bool = false;

    fn bert(model: &SentenceEncoder) -> &BertModel {
        &model.bert
    }

    fn head(&self, model: &SentenceEncoder, hidden: Tensor<3>, inputs: &[&TextGroup]) -> Vec<Vec<Vec<f32>>> {
        let vectors = self.vectors(model, hidden, inputs);
        let [_, width] = vectors.dims();
        let values: Vec<f32> = vectors.into_data().iter::<f32>().collect();
        let mut rows = values.chunks(width).map(<[f32]>::to_vec);
        inputs.iter().map(|input| rows.by_ref().take(input.sequences.len()).collect()).collect()
    }
}
