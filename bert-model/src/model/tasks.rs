//! BERT with each of its heads, named as in Hugging Face transformers and stored in the same layout.
//!
//! Pretraining (paper, section 3.1) has the masked-LM and the next-sentence head; fine-tuning (section 4) adds one dense
//! layer: on the pooled `[CLS]` for sentences and pairs, on every token for tags and answer spans.

use burn::prelude::*;

use super::heads::{MaskedLmHead, TaskHead};
use super::linear::Linear;
use super::{BertInput, BertModel, Initializer};
use crate::config::BertConfig;

/// The hidden states `[M, H]` at flat positions `b·T + t`, the only ones that the masked-LM head needs to see.
fn gather_positions(hidden: Tensor<3>, positions: Tensor<1, Int>) -> Tensor<2> {
    hidden.flatten::<2>(0, 1).select(0, positions)
}

/// `bert_with!(Name { bert, head: Type = init })`: a struct of BERT and its head, with both ways to make one.
macro_rules! bert_with {
    ($(#[$doc:meta])* $name:ident { $bert:ident, $($(#[$head_doc:meta])* $head:ident: $kind:ty = $init:expr),+ }) => {
        $(#[$doc])*
        #[derive(Module, Debug)]
        pub struct $name {
            /// The encoder.
            pub bert: BertModel,
            $($(#[$head_doc])* pub $head: $kind,)+
        }

        impl $name {
            /// A fresh model; everything random comes from the generator of `device` (see [`Device::seed`]).
            pub fn init(config: &BertConfig, device: &Device) -> Self {
                Self::init_with(&mut Initializer::from_device(config, device))
            }

            /// A fresh model with weights from `initializer`.
            pub fn init_with(initializer: &mut Initializer) -> Self {
                let bert = BertModel::$bert(initializer);
                Self { bert, $($head: $init(initializer),)+ }
            }
        }
    };
}

/// The next-sentence head: the pooled output to 2 scores; 0 = is next, 1 = random.
fn next_sentence_head(initializer: &mut Initializer) -> Linear {
    initializer.linear(initializer.config().hidden_size, 2)
}

/// A head with one score for each label.
fn label_head(initializer: &mut Initializer) -> TaskHead {
    TaskHead::init(initializer.config().num_labels(), initializer)
}

/// A head with one score for each choice.
fn choice_head(initializer: &mut Initializer) -> TaskHead {
    TaskHead::init(1, initializer)
}

/// A head with a start and an end score for each token. Dropout is not part of it.
fn span_head(initializer: &mut Initializer) -> Linear {
    initializer.task_head(2)
}

bert_with! {
    /// Both pretraining heads (section 3.1).
    BertForPreTraining { init_with_pooler,
        /// Task 1, masked LM.
        mlm: MaskedLmHead = MaskedLmHead::init,
        /// Task 2, next-sentence prediction: H to 2.
        nsp: Linear = next_sentence_head
    }
}

impl BertForPreTraining {
    /// Scores of both tasks: masked LM at the flat positions `b·T + t` only, next sentence for each pair.
    ///
    /// # Shapes
    /// - `positions`: `[M]`
    /// - output: `[M, V]` and `[B, 2]`
    pub fn forward(&self, input: BertInput, positions: Tensor<1, Int>) -> (Tensor<2>, Tensor<2>) {
        let hidden = self.bert.encode(input);
        let masked = gather_positions(hidden.clone(), positions);
        let mlm_logits = self.mlm.forward(masked, self.bert.embeddings.word.weight.val());
        (mlm_logits, self.nsp.forward(self.bert.pool(hidden)))
    }
}

bert_with! {
    /// The masked-LM head alone.
    BertForMaskedLM { init_without_pooler,
        /// Hidden states to scores of WordPieces.
        mlm: MaskedLmHead = MaskedLmHead::init
    }
}

impl BertForMaskedLM {
    /// Scores of every WordPiece at the flat positions `b·T + t`.
    ///
    /// # Shapes
    /// - `positions`: `[M]`
    /// - output: `[M, V]`
    pub fn forward(&self, input: BertInput, positions: Tensor<1, Int>) -> Tensor<2> {
        let masked = gather_positions(self.bert.encode(input), positions);
        self.mlm.forward(masked, self.bert.embeddings.word.weight.val())
    }
}

bert_with! {
    /// The next-sentence head alone.
    BertForNextSentencePrediction { init_with_pooler,
        /// The pooled output to 2 scores: 0 = is next, 1 = random.
        nsp: Linear = next_sentence_head
    }
}

impl BertForNextSentencePrediction {
    /// Output: `[B, 2]`.
    pub fn forward(&self, input: BertInput) -> Tensor<2> {
        self.nsp.forward(self.bert.pool(self.bert.encode(input)))
    }
}

bert_with! {
    /// A label (or several, or a value) for a text or a pair (section 4.1, GLUE).
    BertForSequenceClassification { init_with_pooler,
        /// The pooled output to one score a label.
        classifier: TaskHead = label_head
    }
}

impl BertForSequenceClassification {
    /// Output: `[B, C]`.
    pub fn forward(&self, input: BertInput) -> Tensor<2> {
        self.head(self.bert.encode(input))
    }

    /// The scores `[B, C]` from the encoder's output `[B, T, H]`, of which only `[CLS]`'s is read.
    pub fn head(&self, hidden: Tensor<3>) -> Tensor<2> {
        self.classifier.forward(self.bert.pool(hidden))
    }
}

bert_with! {
    /// A label for every token (section 5.3, named entities).
    BertForTokenClassification { init_without_pooler,
        /// Each hidden state to one score a label.
        classifier: TaskHead = label_head
    }
}

impl BertForTokenClassification {
    /// Output: `[B, T, C]`.
    pub fn forward(&self, input: BertInput) -> Tensor<3> {
        self.head(self.bert.encode(input))
    }

    /// The scores `[B, T, C]` from the encoder's output `[B, T, H]`.
    pub fn head(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.classifier.forward(hidden)
    }
}

bert_with! {
    /// The span of a text that answers a question (sections 4.2 and 4.3, SQuAD).
    BertForQuestionAnswering { init_without_pooler,
        /// Each hidden state to a start and an end score.
        qa_outputs: Linear = span_head
    }
}

impl BertForQuestionAnswering {
    /// Start scores and end scores, each `[B, T]`.
    pub fn forward(&self, input: BertInput) -> (Tensor<2>, Tensor<2>) {
        self.head(self.bert.encode(input))
    }

    /// Start and end scores, each `[B, T]`, from the encoder's output `[B, T, H]`.
    pub fn head(&self, hidden: Tensor<3>) -> (Tensor<2>, Tensor<2>) {
        let logits = self.qa_outputs.forward(hidden);
        let column = |index: usize| logits.clone().slice_dim(2, index..index + 1).squeeze_dim(2);
        (column(0), column(1))
    }
}

bert_with! {
    /// The best of several continuations (section 4.4, SWAG).
    BertForMultipleChoice { init_with_pooler,
        /// The pooled output to one score.
        classifier: TaskHead = choice_head
    }
}

impl BertForMultipleChoice {
    /// # Shapes
    /// - `input`: `[B·C, T]`, the choices of one example behind each other
    /// - output: `[B, C]`
    pub fn forward(&self, input: BertInput, choices: usize) -> Tensor<2> {
        let scores = self.head(self.bert.encode(input));
        let [rows, _] = scores.dims();
        scores.reshape([rows / choices, choices])
    }

    /// The score `[B·C, 1]` of each text from the encoder's output `[B·C, T, H]`, of which only `[CLS]`'s is read.
    pub fn head(&self, hidden: Tensor<3>) -> Tensor<2> {
        self.classifier.forward(self.bert.pool(hidden))
    }
}
