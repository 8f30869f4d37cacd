#pragma once

/// The one include for the main job: load a model and its dictionaries, search a circuit, test it and show it.

#include "circuit/core/error.hpp"
#include "circuit/core/progress.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/dictionary/load.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/graph/edge_table.hpp"
#include "circuit/graph/view.hpp"
#include "circuit/intervene/ablate.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/search/keep/prompts.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "circuit/version.hpp"
