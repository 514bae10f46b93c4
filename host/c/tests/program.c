/* Uses every declaration of the header, and prints its numbers for the test beside this file. */
#include "fulgurite.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define OFFSET(field) printf(#field " %u\n", (unsigned)offsetof(fulgurite_request, field))

static void print_layout(void) {
    printf("size %u\n", (unsigned)sizeof(fulgurite_request));
    OFFSET(size_bytes);
    OFFSET(dtype);
    OFFSET(mask);
    OFFSET(lse);
    OFFSET(scale);
    OFFSET(device);
    OFFSET(batch);
    OFFSET(heads);
    OFFSET(heads_kv);
    OFFSET(q_len);
    OFFSET(kv_len);
    OFFSET(head_dim);
    OFFSET(q);
    OFFSET(k);
    OFFSET(v);
    OFFSET(out);
    printf("statuses %d %d %d %d %d %d %d\n", FULGURITE_OK, FULGURITE_ERROR_ARGUMENT,
           FULGURITE_ERROR_REQUEST, FULGURITE_ERROR_ADDRESS, FULGURITE_ERROR_DEVICE,
           FULGURITE_ERROR_DRIVER, FULGURITE_ERROR_INTERNAL);
    printf("dtypes %d %d\n", FULGURITE_BF16, FULGURITE_F16);
    printf("masks %d %d\n", FULGURITE_MASK_FULL, FULGURITE_MASK_CAUSAL);
}

int main(void) {
    fulgurite_request request;
    fulgurite_plan *plan = NULL;
    const char *name = NULL;
    int32_t is_noop = -1;
    fulgurite_status status;

    print_layout();
    printf("version %s %s\n", FULGURITE_VERSION, fulgurite_version());
    memset(&request, 0, sizeof request);
    request.size_bytes = sizeof request;
    request.dtype = FULGURITE_F16 + 1;
    status = fulgurite_plan_create(&request, &plan);
    printf("create %d: %s\n", (int)status, fulgurite_last_error());
    if (status != FULGURITE_ERROR_ARGUMENT || plan != NULL) return 1;
    if (fulgurite_plan_variant(plan, &name) != FULGURITE_ERROR_ARGUMENT || name) return 2;
    if (fulgurite_plan_is_noop(plan, &is_noop) != FULGURITE_ERROR_ARGUMENT) return 3;
    if (fulgurite_launch(plan, NULL, NULL, NULL, NULL, NULL, NULL) == FULGURITE_OK) return 4;
    if (fulgurite_plan_destroy(plan) != FULGURITE_OK || is_noop != -1) return 5;
    return 0;
}
