#version 330
// What is seen in each sample: normal, planar depth, triangle and albedo.

const float COS_SHADING_LIMIT = 0.5;  // a shading normal farther than 60 degrees from its triangle is a modelling fault

uniform sampler2D materials;  // two texels per triangle: (albedo, texture layer), (emission, gloss, 0, 0)
uniform sampler2DArray textures;

in vec3 camera_position;
in vec3 camera_normal;
in vec2 texture_uv;
flat in int triangle;

layout(location = 0) out vec4 geometry;  // unit normal facing the camera, z
layout(location = 1) out vec4 surface;   // linear albedo, triangle + 1

void main() {
    int row_triangles = textureSize(materials, 0).x / 2;
    ivec2 texel = ivec2(2 * (triangle % row_triangles), triangle / row_triangles);
    vec4 material = texelFetch(materials, texel, 0);
    vec3 albedo = material.rgb;
    if (material.a >= 0.0) {
        vec4 color = texture(textures, vec3(texture_uv, material.a));
#ifdef HOLES
        if (color.a < 0.5) discard;
#endif
        albedo *= pow(color.rgb, vec3(2.2));
    }

    vec3 flat_normal = normalize(cross(dFdx(camera_position), dFdy(camera_position)));
    if (dot(flat_normal, camera_position) > 0.0) flat_normal = -flat_normal;
    vec3 smooth_normal = normalize(camera_normal);
    if (dot(smooth_normal, flat_normal) < 0.0) smooth_normal = -smooth_normal;
    bool plausible = dot(smooth_normal, flat_normal) > COS_SHADING_LIMIT && dot(smooth_normal, camera_position) < 0.0;

    // gl_FragCoord.w is 1 / clip w, and clip w is z: exact under perspective.
    geometry = vec4(plausible ? smooth_normal : flat_normal, 1.0 / gl_FragCoord.w);
    surface = vec4(albedo, float(triangle + 1));
}
